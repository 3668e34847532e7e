//! The header by which a proxy says whose connection it passes on (PROXY-1…3).

use std::io;
use std::net::IpAddr;

use proxy_header::{Error, ParseConfig, ProxyHeader};

/// What a header says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// The client. `None`: the connection is the proxy's own, or it does not know.
    pub(super) client: Option<IpAddr>,
    /// The bytes that the header took.
    pub(super) length: usize,
}

/// Reads the header that begins with these bytes, of version 1 or 2; `None` if there have to be more.
///
/// # Errors
///
/// If it is none, or longer than `most`.
pub(super) fn read(bytes: &[u8], most: usize) -> io::Result<Option<Header>> {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(byte, with)| byte == with);
    if !begins(V1) && !begins(V2) {
        return Err(invalid("no PROXY header"));
    }
    let mut most = most;
    if let Some(&[command, _, high, low]) = bytes.get(V2.len()..V2.len() + 4)
        && begins(V2)
    {
        let length = V2.len() + 4 + usize::from(u16::from_be_bytes([high, low]));
        if length > most {
            return Err(invalid("a PROXY header that is too long"));
        }
        if command == LOCAL {
            // Whatever else it says is not looked at.
            return Ok((bytes.len() >= length).then_some(Header { client: None, length }));
        }
        most = length;
    }
    match ProxyHeader::parse(bytes, ParseConfig::default()) {
        Ok((header, length)) if length <= most => {
            let client = header.proxied_address().map(|address| address.source.ip());
            Ok(Some(Header { client, length }))
        }
        Err(Error::BufferTooShort) if bytes.len() < most => Ok(None),
        _ => Err(invalid("a PROXY header that cannot be understood")),
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, and the command of a connection that the proxy makes for itself.
const LOCAL: u8 = 0x20;

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 65_536;

    fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
        [V2, &[command, family], &length, payload].concat()
    }

    fn client(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn proxy_2_headers_of_both_versions() {
        let v4: &[u8] = &[192, 0, 2, 1, 192, 0, 2, 2, 1, 2, 3, 4];
        let v6 = [&[0x20, 1, 0xd, 0xb8], [0; 32].as_slice()].concat();
        let with_more = [v4, &[4, 0, 3, 1, 2, 3]].concat();
        for (header, from) in [
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 51234 5222\r\n".to_vec(), client("192.0.2.1")),
            (b"PROXY TCP6 2001:db8::1 2001:db8::2 51234 5222\r\n".to_vec(), client("2001:db8::1")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN whatever it knows\r\n".to_vec(), None),
            (v2(0x21, 0x11, v4), client("192.0.2.1")),
            (v2(0x21, 0x11, &with_more), client("192.0.2.1")),
            (v2(0x21, 0x21, &v6), client("2001:db8::")),
            (v2(0x21, 0x31, &[b'/'; 216]), None),
            (v2(0x21, 0x00, b""), None),
            (v2(0x21, 0x00, &[7; 30_000]), None),
            (v2(0x20, 0x00, b""), None),
            (v2(0x20, 0x11, v4), None),
            (v2(0x20, 0x11, b""), None),
            (v2(0x20, 0xff, b"anything"), None),
        ] {
            let whole = Header { client: from, length: header.len() };
            let followed = [header.as_slice(), b"<stream:stream"].concat();
            assert_eq!(read(&followed, MOST).unwrap(), Some(whole), "{header:?}");
            for end in 0..header.len() {
                assert_eq!(read(&header[..end], MOST).unwrap(), None, "{:?}", &header[..end]);
            }
            assert!(read(&header, header.len() - 1).is_err(), "{header:?}");
        }
    }

    #[test]
    fn proxy_2_what_is_no_header_is_refused_at_once() {
        let long = [b"PROXY TCP4 ", [b'1'; 200].as_slice()].concat();
        for text in [
            b"<".as_slice(),
            b"\x16\x03\x01",
            b"PROXX",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 51234 99999\r\n",
            b"PROXY TCP4 2001:db8::1 192.0.2.2 51234 5222\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 51234 5222\r<",
            b"\r\n\r\n\0\r\nQUIT\n\x31\x11\x00\x00",
            &long,
            &v2(0x21, 0x11, b"short"),
            &v2(0x22, 0x11, b""),
        ] {
            assert!(read(text, MOST).is_err(), "{text:?}");
        }
        let endless = [V2, b"\x20\x00\xff\xff".as_slice()].concat();
        assert!(read(&endless, MOST).is_err(), "longer than all that may come before a login");
    }
}
