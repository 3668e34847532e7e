//! Stanza errors (RFC 6120 §8.3).

/// A stanza error: its type follows from the condition as in RFC 6120 §8.3.3, unless stated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StanzaError {
    condition: Condition,
    type_: ErrorType,
    text: Option<String>,
    application: Option<Box<[u8]>>,
}
impl StanzaError {
    pub fn new(condition: Condition) -> Self {
        todo!()
    }
    #[must_use]
    pub fn with_type(self, type_: ErrorType) -> Self {
        todo!()
    }
    #[must_use]
    pub fn with_text(self, text: &str) -> Self {
        todo!()
    }
    #[must_use]
    pub fn with_application(self, element: &minidom::Element) -> Self {
        todo!()
    }
    pub fn condition(&self) -> Condition {
        self.condition
    }
    pub fn type_(&self) -> ErrorType {
        self.type_
    }
}
impl From<Condition> for StanzaError {
    fn from(condition: Condition) -> Self {
        Self::new(condition)
    }
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorType {
    Auth,
    Cancel,
    Continue,
    Modify,
    Wait,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Condition {
    BadRequest,
    Conflict,
    FeatureNotImplemented,
    Forbidden,
    Gone,
    InternalServerError,
    ItemNotFound,
    JidMalformed,
    NotAcceptable,
    NotAllowed,
    NotAuthorized,
    PolicyViolation,
    RecipientUnavailable,
    Redirect,
    RegistrationRequired,
    RemoteServerNotFound,
    RemoteServerTimeout,
    ResourceConstraint,
    ServiceUnavailable,
    SubscriptionRequired,
    UndefinedCondition,
    UnexpectedRequest,
}
