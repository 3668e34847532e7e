//! Delayed delivery ([XEP-0203](https://xmpp.org/extensions/xep-0203.html)).

use std::time::{SystemTime, UNIX_EPOCH};

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

/// The DateTime profile of XEP-0082, in UTC, with milliseconds if there are any.
pub(crate) fn stamp(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, millis) = (since.as_secs(), since.subsec_millis());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let fraction = if millis == 0 { String::new() } else { format!(".{millis:03}") };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
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
    use std::time::Duration;

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
    fn a_delay_names_who_held_the_stanza() {
        let xml = delay("a'b.example", UNIX_EPOCH);
        assert_eq!(
            String::from_utf8(xml).unwrap(),
            "<delay xmlns='urn:xmpp:delay' from='a&apos;b.example' stamp='1970-01-01T00:00:00Z'/>"
        );
    }
}
