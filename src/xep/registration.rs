mod invitations;

pub use invitations::{Invitation, Invitations, Invite};

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use jid::BareJid;
use minidom::Element;
use parking_lot::Mutex;

use crate::address;
use crate::connection::SharedConnection;
use crate::extension::{
    AccountError, Extension, IqReply, IqRequest, IqResult, ServerHandle, Stage, Target,
    UnauthenticatedIq, Wants,
};
use crate::stanza::{Child, Condition, ErrorType, StanzaError};
use crate::store::{StoreError, StoredInvitation};

const NAMESPACE: &str = "jabber:iq:register";
const PREAUTH: &str = "urn:xmpp:pars:0";

/// Names that no client may take: those by which others reach who runs a server
/// ([RFC 2142](https://www.rfc-editor.org/rfc/rfc2142)), or that look like it.
const RESERVED: [&str; 16] = [
    "abuse",
    "admin",
    "administrator",
    "hostmaster",
    "info",
    "moderator",
    "noc",
    "operator",
    "postmaster",
    "root",
    "security",
    "server",
    "support",
    "system",
    "webmaster",
    "xmpp",
];

/// In-Band Registration ([XEP-0077](https://xmpp.org/extensions/xep-0077.html)): clients make accounts, change
/// their password, remove their account; with invitations
/// ([XEP-0445](https://xmpp.org/extensions/xep-0445.html)) or without (rules [REG-1](crate::rules#reg-1)…9).
///
/// Accounts go to the server's [`AccountStore`](crate::store::AccountStore), as hashes of their passwords: a host
/// that checks passwords by itself makes its accounts by itself. How many a source may make is
/// [`Limits::strangers`](crate::server::Limits::strangers). A client has the time of
/// [`Limits::negotiation`](crate::server::Limits::negotiation) to fill in the form.
///
/// ```
/// use std::sync::Arc;
/// use xmpp_session::connection::Recorder;
/// use xmpp_session::environment::System;
/// use xmpp_session::server::Server;
/// use xmpp_session::store::{MemoryInvitations, Stores};
/// use xmpp_session::xep::{Invitations, Registration};
///
/// let environment = Arc::new(System::new());
/// let invitations = Invitations::new(environment.clone(), MemoryInvitations::new(1000));
/// let server: Server<Recorder> = Server::builder(environment, Stores::memory())
///     .domain("example.com".parse()?)
///     .extension(Registration::invited(invitations.clone()).reserve(["king", "queen"]))
///     .build();
/// # Ok::<(), xmpp_session::jid::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "an extension does nothing until it is added to a server"]
pub struct Registration(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    is_open: bool,
    invitations: Option<Invitations>,
    /// Localparts in normal form.
    reserved: HashSet<String>,
    features: Vec<u8>,
}

impl Registration {
    /// Everybody may make an account. Spammers know that: see the limits, or invite.
    pub fn open() -> Self {
        Self::new(true, None)
    }

    /// Who has an invitation may make an account.
    pub fn invited(invitations: Invitations) -> Self {
        Self::new(false, Some(invitations))
    }

    /// Everybody may make an account, and invitations keep names for those who have one.
    pub fn open_and_invited(invitations: Invitations) -> Self {
        Self::new(true, Some(invitations))
    }

    /// No more clients make accounts: those that have one may change its password, or remove it.
    pub fn closed() -> Self {
        Self::new(false, None)
    }

    fn new(is_open: bool, invitations: Option<Invitations>) -> Self {
        let mut features = Vec::new();
        if invitations.is_some() {
            features.extend_from_slice(b"<register xmlns='urn:xmpp:ibr-token:0'/>");
            // The name that the same had when clients learnt it.
            features.extend_from_slice(b"<register xmlns='urn:xmpp:invite'/>");
        }
        if is_open || invitations.is_some() {
            features
                .extend_from_slice(b"<register xmlns='http://jabber.org/features/iq-register'/>");
        }
        let reserved = RESERVED.iter().map(|name| (*name).to_owned()).collect();
        Self(Arc::new(Inner { is_open, invitations, reserved, features }))
    }

    /// Names that no client may take, unless an invitation is for this very account, beside those of roles such as
    /// `admin` and `postmaster`.
    pub fn reserve<N: AsRef<str>>(self, names: impl IntoIterator<Item = N>) -> Self {
        let mut inner = Inner::clone(&self.0);
        let names = names.into_iter().filter_map(|name| address::local(name.as_ref()).ok());
        inner.reserved.extend(names.map(|name| name.to_string()));
        Self(Arc::new(inner))
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registration")
    }
}

/// What is known of a stream that is not authenticated.
#[derive(Default)]
struct Applicant(Mutex<Application>);

#[derive(Clone, Default)]
struct Application {
    /// The invitation that was accepted, by its key (REG-7).
    invitation: Option<(String, StoredInvitation)>,
    /// It has made an account already, or is about to.
    is_done: bool,
}

/// What a client fills in: the name and the password, each if it is there and not empty.
struct Form {
    username: Option<String>,
    password: Option<String>,
}

impl Form {
    fn read(query: &Child<'_>) -> Self {
        let field = |name: &str| {
            let field = query.children().find(|child| child.is(name, NAMESPACE));
            field.map(|field| field.text().into_owned()).filter(|text| !text.is_empty())
        };
        Self { username: field("username"), password: field("password") }
    }
}

impl<C: SharedConnection> Extension<C> for Registration {
    fn wants(&self) -> Wants {
        if self.0.features.is_empty() { Wants::NOTHING } else { Wants::STRANGERS }
    }

    fn takes(&self, _: &str, _: &str) -> bool {
        false
    }

    fn features(&self, stage: Stage, out: &mut Vec<u8>) {
        if stage == Stage::Secure {
            out.extend_from_slice(&self.0.features);
        }
    }

    fn disco_features(&self, target: Target) -> &[&'static str] {
        if target == Target::Domain { &[NAMESPACE] } else { &[] }
    }

    fn unauthenticated_iq(&self, request: &mut UnauthenticatedIq<'_, C>) -> Option<IqReply> {
        if request.is("preauth", PREAUTH) && request.is_set() {
            let invitations = self.0.invitations.clone()?;
            let applicant = request.kept::<Applicant>();
            let token = request.query().attribute("token").unwrap_or_default();
            let found = invitations.find(&token, request.domain());
            return Some(IqReply::Later(Box::pin(async move {
                // REG-7
                let found = found.await.map_err(failed)?.ok_or(Condition::ItemNotFound)?;
                applicant.0.lock().invitation = Some(found);
                Ok(None)
            })));
        }
        if !request.is("query", NAMESPACE) {
            return None;
        }
        let kept = request.kept::<Applicant>();
        let application = kept.0.lock().clone();
        if application.is_done {
            return Some(IqReply::error(Condition::NotAcceptable));
        }
        if !self.0.is_open && application.invitation.is_none() {
            // REG-3
            return Some(IqReply::error(Condition::NotAllowed));
        }
        if !request.is_set() {
            return Some(IqReply::result(form(&application)));
        }
        if request.query().children().any(|child| child.is("remove", NAMESPACE)) {
            // There is nobody to remove.
            return Some(IqReply::error(Condition::UnexpectedRequest));
        }
        let Form { username: Some(username), password: Some(password) } =
            Form::read(request.query())
        else {
            return Some(IqReply::error(Condition::NotAcceptable));
        };
        let Ok(node) = address::local(&username) else {
            return Some(IqReply::error(Condition::NotAcceptable));
        };
        let account = BareJid::from_parts(Some(&node), request.domain());
        let invited = application.invitation.as_ref().and_then(|(_, one)| one.account.as_ref());
        if self.0.reserved.contains(node.as_str()) && invited != Some(&account) {
            // REG-5: as a name that is taken.
            return Some(IqReply::error(Condition::Conflict));
        }
        let making = Making {
            inner: Arc::clone(&self.0),
            server: request.server().clone(),
            source: request.source().map(str::to_owned),
            account,
            password,
        };
        // Two requests of one stream wait for each other; should the first one fail, it may try again.
        Some(IqReply::Later(Box::pin(async move { making.run(&kept).await })))
    }

    fn iq(&self, request: &IqRequest<'_, C>) -> Option<IqReply> {
        let session = request.session()?;
        let own = &session.account().bare;
        let is_mine = request.is_own_account() || request.to().as_str() == own.domain().as_str();
        if !request.is("query", NAMESPACE) || !is_mine {
            return None;
        }
        let query = request.query();
        let node = own.node().map(|node| node.as_str().to_owned()).unwrap_or_default();
        if !request.is_set() {
            let field = |name: &str| Element::bare(name, NAMESPACE);
            let mut username = field("username");
            username.append_text_node(node);
            let answer = Element::builder("query", NAMESPACE).append(field("registered"));
            return Some(IqReply::result(
                answer.append(username).append(field("password")).build(),
            ));
        }
        let (server, by) = (request.server().clone(), session.clone());
        if query.children().any(|child| child.is("remove", NAMESPACE)) {
            if query.children().nth(1).is_some() {
                return Some(IqReply::error(Condition::BadRequest));
            }
            let request = request.stanza().clone();
            return Some(IqReply::Later(Box::pin(async move {
                // REG-6: it is answered before the session ends.
                server.remove(&by, &request).await.map_err(refusal)?;
                Ok(None)
            })));
        }
        let Form { username, password: Some(password) } = Form::read(query) else {
            return Some(IqReply::error(Condition::BadRequest));
        };
        let is_own = |name: String| address::local(&name).is_ok_and(|name| name.as_str() == node);
        if !username.is_some_and(is_own) {
            return Some(IqReply::error(Condition::BadRequest));
        }
        if !session.is_protected() {
            // XEP-0077 §3.3
            let error = StanzaError::new(Condition::NotAuthorized);
            return Some(IqReply::error(error.with_type(ErrorType::Modify)));
        }
        Some(IqReply::Later(Box::pin(async move {
            server.set_password(&by, &password).await.map_err(refusal)?;
            Ok(None)
        })))
    }
}

/// An account that is being made.
struct Making<C: SharedConnection> {
    inner: Arc<Inner>,
    server: ServerHandle<C>,
    source: Option<String>,
    account: BareJid,
    password: String,
}

impl<C: SharedConnection> Making<C> {
    async fn run(self, applicant: &Applicant) -> IqResult {
        let Self { inner, server, source, account, password } = self;
        let invitation = applicant.0.lock().invitation.clone();
        let key = invitation.as_ref().map(|(key, _)| &**key);
        if let Some(invitations) = &inner.invitations
            && invitations.is_reserved(&account, key).await.map_err(failed)?
        {
            return Err(Condition::Conflict.into());
        }
        let mut using = None;
        if let (Some(invitations), Some((key, invitation))) = (&inner.invitations, &invitation) {
            if invitation.account.as_ref().is_some_and(|only| *only != account) {
                return Err(Condition::NotAcceptable.into());
            }
            using = invitations.begin(key, invitation.clone()).await.map_err(failed)?;
            if using.is_none() && !inner.is_open {
                // Somebody else was first.
                return Err(Condition::ItemNotFound.into());
            }
        }
        // The invitation is taken: who makes the account has used it, also where nobody waits for that any longer.
        if let Err(error) = server.create(&account, &password, source.as_deref()).await {
            if let Some(using) = using {
                using.give_back().await.map_err(failed)?;
            }
            return Err(refusal(error));
        }
        applicant.0.lock().is_done = true;
        if using.is_none() {
            return Ok(None);
        }
        if let Some(contact) = invitation.and_then(|(_, invitation)| invitation.contact) {
            let _gone = server.befriend(&account, &contact).await;
        }
        Ok(None)
    }
}

/// What is to be filled in (XEP-0077 §3.1).
fn form(application: &Application) -> Element {
    let text = "Choose a user name and a password.";
    let instructions = Element::builder("instructions", NAMESPACE).append(text);
    let mut username = Element::bare("username", NAMESPACE);
    let only = application.invitation.as_ref().and_then(|(_, one)| one.account.as_ref());
    if let Some(name) = only.and_then(|account| account.node()) {
        username.append_text_node(name.as_str());
    }
    let query = Element::builder("query", NAMESPACE).append(instructions);
    query.append(username).append(Element::bare("password", NAMESPACE)).build()
}

fn failed(error: StoreError) -> StanzaError {
    StanzaError::new(Condition::InternalServerError).with_cause(error)
}

fn refusal(error: AccountError) -> StanzaError {
    match error {
        AccountError::Exists => Condition::Conflict.into(),
        AccountError::InvalidAddress | AccountError::Password(_) => Condition::NotAcceptable.into(),
        // It has no password here.
        AccountError::NoAccount => Condition::NotAllowed.into(),
        AccountError::Store(error) => failed(error),
        _ => Condition::InternalServerError.into(),
    }
}
