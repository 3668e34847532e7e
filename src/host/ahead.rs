//! What was read of a stream before it was its turn.

/// Bytes that come before those which the stream still has. Usually there are none.
#[derive(Default)]
pub(super) struct Ahead(Option<Box<Unread>>);

struct Unread {
    bytes: Vec<u8>,
    read: usize,
}

impl Ahead {
    pub(super) fn new(bytes: &[u8]) -> Self {
        let unread = || Box::new(Unread { bytes: bytes.to_vec(), read: 0 });
        Self((!bytes.is_empty()).then(unread))
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Gives what there is, `most` bytes at most, to `take`. False if there is none.
    pub(super) fn read(&mut self, most: usize, take: impl FnOnce(&[u8])) -> bool {
        let Some(unread) = &mut self.0 else { return false };
        let left = unread.bytes.get(unread.read..).unwrap_or_default();
        let now = left.get(..most).unwrap_or(left);
        take(now);
        unread.read += now.len();
        if unread.read == unread.bytes.len() {
            self.0 = None;
        }
        true
    }
}
