//! What a client says about itself when it logs in.

use std::fmt;
use std::num::NonZeroU64;

/// Which installation of a client logs in: the `id` of its
/// [`<user-agent/>`](https://xmpp.org/extensions/xep-0388.html#initiation), a UUID. Never shown to other
/// entities ([SASL2-10](crate::rules#sasl2-10)).
///
/// ```
/// use xmpp_session::session::ClientId;
///
/// let id = ClientId::parse("d4565fa7-4d72-4749-b3d3-740edbf87770").ok_or("a UUID")?;
/// assert_eq!(ClientId::parse("D4565FA7-4D72-4749-B3D3-740EDBF87770"), Some(id));
/// assert_eq!(ClientId::parse("my phone"), None);
/// # Ok::<(), &str>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientId([u8; 16]);

impl ClientId {
    /// Reads a UUID in its usual form; `None` if it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        let mut digits = text.bytes();
        for (at, byte) in bytes.iter_mut().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) && digits.next() != Some(b'-') {
                return None;
            }
            let mut digit = || char::from(digits.next()?).to_digit(16);
            let (high, low) = (digit()?, digit()?);
            *byte = u8::try_from(high << 4 | low).ok()?;
        }
        digits.next().is_none().then_some(Self(bytes))
    }

    /// Of these bytes, as [`to_bytes`](Self::to_bytes) gives them.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes, for a store.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// What stands for it in the sessions of its account, whichever node they are on.
    pub(crate) fn digest(self) -> NonZeroU64 {
        // FNV-1a.
        let mix = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        let hash = self.0.into_iter().fold(0xcbf2_9ce4_8422_2325, mix);
        NonZeroU64::new(hash).unwrap_or(NonZeroU64::MIN)
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientId")
    }
}

/// What a client says about itself when it logs in
/// ([XEP-0388 §2.3](https://xmpp.org/extensions/xep-0388.html#initiation)): claims, which nobody has checked. Never
/// shown to other entities ([SASL2-10](crate::rules#sasl2-10)).
#[cfg(feature = "server")]
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserAgent {
    /// The installation, if it has said so with a UUID.
    pub id: Option<ClientId>,
    /// The name of its software.
    pub software: Option<Box<str>>,
    /// The device that it runs on.
    pub device: Option<Box<str>>,
}

#[cfg(feature = "server")]
impl fmt::Debug for UserAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserAgent").field("id", &self.id.is_some()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sasl2_10_an_id_is_a_uuid() {
        let id = ClientId::parse("00112233-4455-6677-8899-aAbBcCdDeEfF").unwrap();
        assert_eq!(id.to_bytes()[..3], [0, 0x11, 0x22]);
        assert_eq!(ClientId::from_bytes(id.to_bytes()), id);
        for other in [
            "",
            "00112233-4455-6677-8899-aabbccddeef",
            "00112233-4455-6677-8899-aabbccddeeff0",
            "00112233-4455-6677-8899-aabbccddeefg",
            "0011223304455-6677-8899-aabbccddeeff",
            "{00112233-4455-6677-8899-aabbccddeeff}",
            "00112233445566778899aabbccddeeff",
            "+0112233-4455-6677-8899-aabbccddeeff",
        ] {
            assert_eq!(ClientId::parse(other), None, "{other:?}");
        }
    }

    #[cfg(feature = "server")]
    #[test]
    fn sasl2_10_debug_shows_no_claim() {
        let id = ClientId::from_bytes([0xab; 16]);
        let agent = UserAgent { id: Some(id), software: Some("x1".into()), device: None };
        assert_eq!(format!("{agent:?}"), "UserAgent { id: true, .. }");
        assert_eq!(format!("{id:?}"), "ClientId");
    }
}
