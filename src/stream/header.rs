//! The header that opens a stream.

use std::fmt;
use std::sync::{Arc, LazyLock};

use minidom::rxml::RawEvent;

use super::{
    CONTENT_NAMESPACE, Limit, Nonza, STREAM_NAMESPACE, StreamCondition, StreamError, Version,
};
use crate::stanza::bounds::Bounds;
use crate::stanza::canonical::{Declaration, Declarations, Feeder, Tag, TagBuilder};

/// The header with which a client opens a stream
/// ([RFC 6120 §4.7](https://www.rfc-editor.org/rfc/rfc6120#section-4.7)).
///
/// An `id` in it is ignored (rule [STREAM-10](crate::rules#stream-10)).
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    to: Option<Box<str>>,
    from: Option<Box<str>>,
    lang: Option<Box<str>>,
    version: Option<Version>,
}

impl Header {
    /// The header that is a message (RFC 7395 §3.4).
    pub(super) fn of_open(open: &Nonza) -> Self {
        let attribute = |name| open.attribute(name).map(|value| Box::from(&*value));
        Self {
            to: attribute("to"),
            from: attribute("from"),
            lang: open
                .attribute("xml:lang")
                .filter(|lang| is_lang(lang))
                .map(|lang| Box::from(&*lang)),
            version: open.attribute("version").and_then(|version| Version::parse(&version)),
        }
    }

    /// The domain that the client wants, as it was written.
    #[must_use]
    pub fn to(&self) -> Option<&str> {
        self.to.as_deref()
    }

    /// Who the client says it is, as it was written.
    #[must_use]
    pub fn from(&self) -> Option<&str> {
        self.from.as_deref()
    }

    /// The language for stanzas that have none (rule [STREAM-11](crate::rules#stream-11)). One of more than 35 bytes is
    /// ignored (rule [LIMIT-6](crate::rules#limit-6)).
    #[must_use]
    pub fn lang(&self) -> Option<&str> {
        self.lang.as_deref()
    }

    /// The version; `None` where it is missing or malformed.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// The version that both sides speak: the lower of the client's and the server's (rule [STREAM-3](crate::rules#stream-3)).
    ///
    /// # Errors
    ///
    /// `unsupported-version` if the client states none, or one before 1.0, because nothing works
    /// without stream features (rule [STREAM-2](crate::rules#stream-2)). The response header then states none either.
    pub fn negotiate(&self) -> Result<Version, StreamError> {
        match self.version {
            Some(version) if version >= Version::ONE => Ok(version.min(Version::ONE)),
            _ => Err(StreamCondition::UnsupportedVersion.into()),
        }
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Header").field("version", &self.version).finish_non_exhaustive()
    }
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self { major: number(major)?, minor: number(minor)? })
    }
}

/// Leading zeros are ignored; what is too large is just large.
fn number(digits: &str) -> Option<u32> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u32::MAX))
}

/// What a header means for the rest of its stream. Shared by the streams of all clients
/// that write it in the usual way.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened {
    /// The name in the tag, and so in the close tag.
    pub(super) name: Box<str>,
    pub(super) declarations: Arc<Declarations>,
}

#[cfg(feature = "cluster")]
impl Opened {
    /// One that is shared with others if it is the usual one.
    pub(super) fn shared(name: Box<str>, declarations: Arc<Declarations>) -> Arc<Self> {
        let opened = Self { name, declarations };
        if opened == **USUAL { Arc::clone(&USUAL) } else { Arc::new(opened) }
    }
}

static USUAL: LazyLock<Arc<Opened>> = LazyLock::new(|| {
    let declarations = vec![
        (None, Arc::from(CONTENT_NAMESPACE)),
        (Some(Box::from("stream")), Arc::from(STREAM_NAMESPACE)),
    ];
    Arc::new(Opened {
        name: "stream:stream".into(),
        declarations: Arc::new(Declarations(declarations)),
    })
});

/// Whether a language is remembered.
fn is_lang(value: &str) -> bool {
    !value.is_empty() && value.len() <= LONGEST_LANG
}

/// Longest language that is remembered, in bytes (LIMIT-6).
const LONGEST_LANG: usize = 35;

/// Most bytes of prefixes and namespaces (LIMIT-41).
const MOST_DECLARED: usize = 1024;

/// Reads one header in pieces of any size.
pub(super) struct HeaderReader {
    feeder: Feeder,
    tag: TagBuilder,
}

/// A header that is complete.
pub(super) struct Parsed {
    pub(super) header: Header,
    pub(super) opened: Arc<Opened>,
    /// The tag is that of an empty element: the stream ends where it starts.
    pub(super) is_empty: bool,
}

impl HeaderReader {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { feeder: Feeder::new(bounds.bytes), tag: TagBuilder::new(bounds.attributes) }
    }

    /// Takes bytes off the front of `input`, none after the header. `None`: more is needed.
    /// `bytes` is the limit in force on its length.
    pub(super) fn feed(
        &mut self,
        input: &mut &[u8],
        bytes: Limit,
    ) -> Result<Option<Parsed>, StreamError> {
        let refused = |refusal| StreamError::for_refusal(refusal, bytes);
        while let Some(event) = self.feeder.next(input).map_err(refused)? {
            match event {
                RawEvent::ElementHeadOpen(_, name) => self.tag.open(name),
                RawEvent::Attribute(_, name, value) => {
                    self.tag.attribute(name, value).map_err(refused)?
                }
                RawEvent::ElementHeadClose(_) => {
                    let tag = self.tag.finish_outermost().map_err(refused)?;
                    let is_empty = self.feeder.bytes().ends_with(b"/>");
                    return parsed(tag, is_empty).map(Some);
                }
                // Neither comes before the end of a start tag, nor does a declaration in it.
                RawEvent::XmlDeclaration(..) | RawEvent::Text(..) | RawEvent::ElementFoot(_) => {
                    return Err(StreamCondition::NotWellFormed.into());
                }
            }
        }
        Ok(None)
    }
}

fn parsed(tag: Tag, is_empty: bool) -> Result<Parsed, StreamError> {
    // STREAM-12
    if **tag.namespace() != *STREAM_NAMESPACE {
        return Err(StreamCondition::InvalidNamespace.into());
    }
    if tag.local != *"stream" {
        return Err(StreamCondition::BadFormat.into());
    }
    let name = match &tag.prefix {
        Some(prefix) => format!("{}:stream", prefix.as_str()).into(),
        None => "stream".into(),
    };
    let is_kept = |(prefix, _): &Declaration| prefix.as_deref() != Some("xml");
    let mut declarations: Vec<Declaration> = tag.declarations.into_iter().filter(is_kept).collect();
    declarations.sort_unstable();
    let length =
        |(prefix, namespace): &Declaration| prefix.as_deref().map_or(0, str::len) + namespace.len();
    let declared: usize = declarations.iter().map(length).sum();
    let declarations = Declarations(declarations);
    // STREAM-13, STREAM-14: the stream's own namespace may be the default one.
    if !matches!(
        declarations.get(None).map(|namespace| &**namespace),
        None | Some("" | CONTENT_NAMESPACE | STREAM_NAMESPACE)
    ) {
        return Err(StreamCondition::InvalidNamespace.into());
    }
    // LIMIT-41: they are kept as long as the stream, and may be written anew for each stanza.
    if declared > MOST_DECLARED {
        return Err(StreamError::exceeded(Limit::Declarations));
    }
    let opened = Opened { name, declarations: Arc::new(declarations) };
    let opened = if opened == **USUAL { Arc::clone(&USUAL) } else { Arc::new(opened) };

    let mut header = Header { to: None, from: None, lang: None, version: None };
    for attribute in &tag.attributes {
        let value = attribute.value.as_str();
        match (attribute.prefix(), attribute.name.1.as_str()) {
            (None, "to") => header.to = Some(value.into()),
            (None, "from") => header.from = Some(value.into()),
            (None, "version") => header.version = Version::parse(value),
            (Some("xml"), "lang") if is_lang(value) => header.lang = Some(value.into()),
            _ => {}
        }
    }
    Ok(Parsed { header, opened, is_empty })
}
