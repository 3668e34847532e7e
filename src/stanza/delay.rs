//! Delayed delivery ([XEP-0203](https://xmpp.org/extensions/xep-0203.html)).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Child, Kind, Stanza, write};

const NAMESPACE: &str = "urn:xmpp:delay";

/// A `<delay/>` saying that `from` has held a stanza since `at`.
pub(crate) fn delay(from: &str, at: SystemTime) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    let attributes = [("xmlns", NAMESPACE), ("from", from), ("stamp", &stamp(at))];
    write::leaf(&mut out, "delay", &attributes, None);
    out
}

/// Whether a stanza says already that `domain` has held it; presence says so in the name of the
/// resource that it is from.
pub(crate) fn is_delayed_by(stanza: &Stanza, domain: &str) -> bool {
    delays(stanza, domain).next().is_some()
}

fn delays<'a>(stanza: &'a Stanza, domain: &'a str) -> impl Iterator<Item = Child<'a>> {
    let own = stanza.from().filter(|_| stanza.kind() == Kind::Presence);
    let delays = stanza.children().filter(|child| child.is("delay", NAMESPACE));
    delays.filter(move |delay| {
        let from = delay.attribute("from");
        from.is_some() && (from.as_deref() == Some(domain) || from == own)
    })
}

/// A time as XEP-0082 writes it, in UTC, with milliseconds if there are any: `2026-01-01T00:00:00Z`.
#[must_use]
pub fn stamp(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, millis) = (since.as_secs(), since.subsec_millis());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let fraction = if millis == 0 { String::new() } else { format!(".{millis:03}") };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// Reads a time as XEP-0082 has it, in whichever zone; `None` where it is none, or before 1970. What is
/// finer than a nanosecond is left out.
///
/// ```
/// use xmpp_session::stanza::{read_stamp, stamp};
///
/// let at = read_stamp("2026-01-01T01:00:00.25+01:00").ok_or("no time")?;
/// assert_eq!(stamp(at), "2026-01-01T00:00:00.250Z");
/// # Ok::<(), &str>(())
/// ```
#[must_use]
pub fn read_stamp(text: &str) -> Option<SystemTime> {
    let (date, time) = text.split_once('T')?;
    let (time, east, zone) = match (time.strip_suffix('Z'), time.split_once(['+', '-'])) {
        (Some(time), _) => (time, false, "00:00"),
        (None, Some((time, zone))) => (time, text.contains('+'), zone),
        (None, None) => return None,
    };
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    let [zone_hours, zone_minutes] = numbers(zone, ':', [2, 2])?;
    let is_date = (1..=12).contains(&month) && (1..=31).contains(&day);
    let is_time = hour < 24 && minute < 60 && second <= 60 && zone_hours < 24 && zone_minutes < 60;
    if !is_date || !is_time || fraction.is_empty() || fraction.bytes().any(|b| !b.is_ascii_digit())
    {
        return None;
    }
    let nanos = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanos = nanos.fold(0, |sum: u32, digit| sum * 10 + u32::from(digit - b'0'));
    let local = days_to(year, month, day)? * 86_400 + hour * 3600 + minute * 60 + second;
    let offset = zone_hours * 3600 + zone_minutes * 60;
    let seconds = if east { local.checked_sub(offset)? } else { local + offset };
    UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))
}

/// Numbers of so many digits each.
fn numbers<const N: usize>(text: &str, between: char, digits: [usize; N]) -> Option<[u64; N]> {
    let mut parts = text.split(between);
    let mut found = [0; N];
    for (place, digits) in found.iter_mut().zip(digits) {
        let part = parts.next().filter(|part| part.len() == digits)?;
        if !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *place = part.parse().ok()?;
    }
    parts.next().is_none().then_some(found)
}

/// The days from 1970-01-01 to a Gregorian date; `None` before that day, and where the month has no such
/// day.
fn days_to(year: u64, month: u64, day: u64) -> Option<u64> {
    let (march, year) = ((month + 9) % 12, year - u64::from(month <= 2 && year > 0));
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = (era * 146_097 + day_of_era).checked_sub(719_468)?;
    (civil(days) == (year + u64::from(month <= 2), month, day)).then_some(days)
}

/// The Gregorian date of a day since 1970-01-01: counted in eras of 400 years from a March 1st,
/// so that the leap day comes last.
const fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400;
    (if month <= 2 { year + 1 } else { year }, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_right_at_the_edges_of_the_calendar() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (1_767_225_600, "2026-01-01T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ];
        for (seconds, text) in cases {
            let at = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(stamp(at), text);
        }
    }

    #[test]
    fn stamps_have_milliseconds_where_there_are_any() {
        let at = UNIX_EPOCH + Duration::from_micros(1_767_225_599_042_999);
        assert_eq!(stamp(at), "2025-12-31T23:59:59.042Z");
    }

    #[test]
    fn stamps_are_read_in_every_zone() {
        for (text, seconds, nanos) in [
            ("1970-01-01T00:00:00Z", 0, 0),
            ("2000-02-29T00:00:00Z", 951_782_400, 0),
            ("2100-03-01T00:00:00Z", 4_107_542_400, 0),
            ("2025-12-31T23:59:59.5Z", 1_767_225_599, 500_000_000),
            ("2025-12-31T23:59:59.1234567899Z", 1_767_225_599, 123_456_789),
            ("2026-01-01T01:59:59+02:00", 1_767_225_599, 0),
            ("2025-12-31T18:29:59-05:30", 1_767_225_599, 0),
        ] {
            assert_eq!(
                read_stamp(text),
                Some(UNIX_EPOCH + Duration::new(seconds, nanos)),
                "{text}"
            );
        }
        for text in [
            "",
            "T",
            "Z",
            "2026-01-01",
            "2026-01-01T00:00:00",
            "2026-01-01 00:00:00Z",
            "1969-12-31T23:59:59Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-04-31T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00.xZ",
            "26-01-01T00:00:00Z",
            "+026-01-01T00:00:00Z",
            "2026-01-01T00:00:00+1:00",
            "2026-01-01T00:00:00+01:00Z",
            "2026-01-01T00:00:00Z ",
            "0000-01-01T00:00:00Z",
            "2026-01-01-01T00:00:00Z",
        ] {
            assert_eq!(read_stamp(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for day in 0..60_000 {
            let at = UNIX_EPOCH + Duration::from_millis(day * 86_400_000 + day % 1000);
            assert_eq!(read_stamp(&stamp(at)), Some(at));
        }
    }

    #[test]
    fn a_delay_names_who_held_the_stanza() {
        let xml = delay("a'b.example", UNIX_EPOCH);
        assert_eq!(
            String::from_utf8(xml).unwrap(),
            "<delay xmlns='urn:xmpp:delay' from='a&apos;b.example' stamp='1970-01-01T00:00:00Z'/>"
        );
    }
}
