//! Streams that begin at one node and go on at another.

use std::sync::Arc;

use super::{Parser, State};
use crate::stanza::canonical::Declarations;
use crate::stream::header::Opened;

/// What the header of a stream means for the rest of it: the name of its tag, and the prefixes and namespaces that it
/// declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OpenedStream {
    pub(crate) name: String,
    pub(crate) declarations: Vec<(Option<String>, String)>,
}

impl Parser {
    /// What the header has said; `None` where there is none to be heard: before it, and where each element is a message.
    pub(crate) fn opened(&self) -> Option<OpenedStream> {
        let opened = self.opened.as_ref()?;
        let declarations = opened.declarations.0.iter();
        let declarations = declarations
            .map(|(prefix, namespace)| (prefix.as_deref().map(str::to_owned), (**namespace).into()))
            .collect();
        Some(OpenedStream { name: (*opened.name).into(), declarations })
    }

    /// Goes on behind the header of a stream, which has said this.
    pub(crate) fn go_on(&mut self, opening: Option<OpenedStream>) {
        self.opened = opening.map(|OpenedStream { name, declarations }| {
            let declarations = declarations.into_iter();
            let declarations = declarations
                .map(|(prefix, namespace)| (prefix.map(Into::into), namespace.into()))
                .collect();
            Opened::shared(name.into(), Arc::new(Declarations(declarations)))
        });
        self.state = State::Between;
    }

    /// Takes bytes that another parser of this framing has not read.
    pub(crate) fn feed_unread(&mut self, unread: &[u8]) {
        self.feed_stream(unread);
    }

    /// Reads nothing more.
    pub(crate) fn stop(&mut self) {
        self.take_unread();
        self.state = State::Ended;
    }
}
