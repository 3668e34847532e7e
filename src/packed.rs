//! Values as bytes, and back, for what goes from one node to another. Numbers are LEB128; what has a length is preceded
//! by it.

use std::time::{Duration, SystemTime};

/// Bytes that are being written.
#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    /// Begins with the number of a version.
    pub(crate) fn versioned(version: u8) -> Self {
        Self::with_room(version, 0)
    }

    /// The same, for about so many bytes.
    pub(crate) fn with_room(version: u8, bytes: usize) -> Self {
        let mut this = Self(Vec::with_capacity(bytes + 64));
        this.byte(version);
        this
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub(crate) fn number(&mut self, number: impl Into<u64>) {
        let mut number = number.into();
        while number >= 0x80 {
            self.byte(number as u8 | 0x80);
            number >>= 7;
        }
        self.byte(number as u8);
    }

    pub(crate) fn count(&mut self, count: usize) {
        self.number(count as u64);
    }

    pub(crate) fn time(&mut self, time: Duration) {
        self.number(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// A time of day, which is not before 1970.
    pub(crate) fn date(&mut self, date: SystemTime) {
        self.time(date.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    }

    pub(crate) fn flag(&mut self, flag: bool) {
        self.byte(flag.into());
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// So many bytes, which `write` appends.
    pub(crate) fn bytes_by(&mut self, length: usize, write: impl FnOnce(&mut Vec<u8>)) {
        self.count(length);
        self.0.reserve(length);
        write(&mut self.0);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Whether there is one, and it.
    pub(crate) fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    pub(crate) fn list<T>(&mut self, items: &[T], each: impl Fn(&mut Self, &T)) {
        self.count(items.len());
        items.iter().for_each(|item| each(self, item));
    }

    pub(crate) fn texts<'a>(&mut self, texts: impl ExactSizeIterator<Item = &'a str>) {
        self.count(texts.len());
        texts.for_each(|text| self.text(text));
    }
}

/// Bytes that are being read. `None` from any of its functions: they are not what was written.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether all is read.
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is not read yet.
    pub(crate) const fn rest(self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// Each number in its shortest form.
    pub(crate) fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return None;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return (byte != 0 || shift == 0).then_some(number);
            }
        }
        None
    }

    pub(crate) fn small(&mut self) -> Option<u32> {
        self.number()?.try_into().ok()
    }

    pub(crate) fn count(&mut self) -> Option<usize> {
        self.number()?.try_into().ok()
    }

    pub(crate) fn time(&mut self) -> Option<Duration> {
        self.number().map(Duration::from_nanos)
    }

    pub(crate) fn date(&mut self) -> Option<SystemTime> {
        SystemTime::UNIX_EPOCH.checked_add(self.time()?)
    }

    pub(crate) fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.count()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(crate) fn text(&mut self) -> Option<&'a str> {
        str::from_utf8(self.bytes()?).ok()
    }

    /// One that may not be there.
    #[expect(clippy::option_option, reason = "none may be what was written")]
    pub(crate) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<Option<T>> {
        if self.flag()? { read(self).map(Some) } else { Some(None) }
    }

    /// No room is taken for what only a number says is there.
    pub(crate) fn list<T>(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        let length = self.number()?;
        (0..length).map(|_| each(self)).collect()
    }

    pub(crate) fn texts(&mut self) -> Option<Vec<&'a str>> {
        self.list(Self::text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut out = Writer::default();
        for number in [0, 1, 127, 128, u64::from(u32::MAX), u64::MAX] {
            out.number(number);
        }
        out.flag(true);
        out.text("é");
        out.option(Some(7_u32), |out, seven| out.number(seven));
        out.option(None::<u32>, |out, number| out.number(number));
        out.texts(["a", ""].into_iter());
        out.time(Duration::new(3, 5));
        let bytes = out.into_bytes();
        let mut input = Reader::new(&bytes);
        for number in [0, 1, 127, 128, u64::from(u32::MAX), u64::MAX] {
            assert_eq!(input.number(), Some(number));
        }
        assert_eq!((input.flag(), input.text()), (Some(true), Some("é")));
        assert_eq!(input.option(Reader::small), Some(Some(7)));
        assert_eq!(input.option(Reader::small), Some(None));
        assert_eq!(input.texts(), Some(vec!["a", ""]));
        assert!(!input.is_empty());
        assert_eq!(input.time(), Some(Duration::new(3, 5)));
        assert!(input.is_empty());
        assert_eq!((input.byte(), input.number(), input.bytes()), (None, None, None));
    }

    #[test]
    fn what_was_not_written_is_not_read() {
        // Longer than it has to be, too large, no flag, longer than what is there, no text.
        assert_eq!(Reader::new(&[0x80, 0]).number(), None);
        assert_eq!(Reader::new(&[0xff; 11]).number(), None);
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x7f]).small(), None);
        assert_eq!(Reader::new(&[2]).flag(), None);
        assert_eq!(Reader::new(&[2, b'a']).bytes(), None);
        assert_eq!(Reader::new(&[1, 0xff]).text(), None);
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0x7f]).texts(), None);
    }
}
