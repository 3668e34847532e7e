//! Roster sets: what a client may ask for, and what it changes.

use std::collections::BTreeSet;
use std::fmt;

use jid::{BareJid, ResourcePart};

use super::{Item, NAMESPACE, Roster, RosterLimits};
use crate::address;
use crate::rules::subscription::{Farewell, removal};
use crate::stanza::{Child, Condition, ErrorType, StanzaError};

/// A roster set, read and checked: one contact, and what to do with its item
/// ([RFC 6121 §2.1.5](https://www.rfc-editor.org/rfc/rfc6121#section-2.1.5)).
///
/// `subscription` other than `remove`, `ask` and `approved` are not even read: only presence changes
/// them (rule ROSTER-8).
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RosterSet {
    contact: BareJid,
    change: Change,
}

#[derive(Clone, PartialEq, Eq)]
enum Change {
    /// Both replace what is there as a whole (rule ROSTER-9).
    Update {
        name: Option<String>,
        groups: Vec<String>,
    },
    Remove,
}

impl RosterSet {
    /// The removal of a contact.
    #[must_use]
    pub(crate) const fn removal(contact: BareJid) -> Self {
        Self { contact, change: Change::Remove }
    }

    /// A new name and new groups for a contact, which may be new.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse).
    pub(crate) fn update(
        contact: BareJid,
        name: Option<&str>,
        groups: impl IntoIterator<Item = impl Into<String>>,
        limits: &RosterLimits,
    ) -> Result<Self, RosterError> {
        let name = name.filter(|name| !name.is_empty());
        if name.is_some_and(|name| name.len() > limits.name) {
            return Err(RosterError::NameTooLong);
        }
        let groups = checked_groups(groups, limits)?;
        Ok(Self { contact, change: Change::Update { name: name.map(Into::into), groups } })
    }

    /// Reads the `<query/>` of a roster set.
    ///
    /// # Errors
    ///
    /// [`RosterError`] if it is not one item with a JID, a name and groups within the limits (rules
    /// ROSTER-5, ROSTER-6, ROSTER-7 and LIMIT-15).
    pub(crate) fn parse(query: &Child<'_>, limits: &RosterLimits) -> Result<Self, RosterError> {
        let mut items = query.children().filter(|child| child.is("item", NAMESPACE));
        let (Some(item), None) = (items.next(), items.next()) else {
            return Err(RosterError::NotOneItem);
        };
        let contact = parse_contact(&item.attribute("jid").ok_or(RosterError::NoJid)?)?;
        if item.attribute("subscription").is_some_and(|value| value == "remove") {
            return Ok(Self { contact, change: Change::Remove });
        }
        let groups = item.children().filter(|child| child.is("group", NAMESPACE));
        let groups = groups.map(|group| group.text().into_owned());
        Self::update(contact, item.attribute("name").as_deref(), groups, limits)
    }

    /// The contact.
    #[must_use]
    pub(crate) const fn contact(&self) -> &BareJid {
        &self.contact
    }

    /// Whether it removes the contact's item: only such a set concerns anybody else.
    #[must_use]
    pub(crate) const fn is_removal(&self) -> bool {
        matches!(self.change, Change::Remove)
    }
}

impl fmt::Debug for RosterSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.change {
            Change::Update { groups, .. } => {
                write!(f, "RosterSet(update, {} groups)", groups.len())
            }
            Change::Remove => f.write_str("RosterSet(remove)"),
        }
    }
}

fn parse_contact(text: &str) -> Result<BareJid, RosterError> {
    let (contact, resource) = address::parts(text);
    let contact = address::bare(contact).map_err(|_| RosterError::InvalidJid)?;
    match resource {
        None => Ok(contact),
        Some("") => Err(RosterError::InvalidJid),
        Some(_) => Err(RosterError::FullJid),
    }
}

/// The text by which a roster set removes an item of `roster` that has no address (rule JID-6).
#[cfg(feature = "server")]
pub(crate) fn removed_stray(query: &Child<'_>, roster: &Roster) -> Option<String> {
    let mut items = query.children().filter(|child| child.is("item", NAMESPACE));
    let (item, None) = (items.next()?, items.next()) else { return None };
    let jid = item.attribute("jid")?;
    let removes = item.attribute("subscription").is_some_and(|value| value == "remove");
    let is_address = || address::bare(&jid).is_ok_and(|normal| normal.as_str() == jid);
    (removes && roster.get(&jid).is_some() && !is_address()).then(|| jid.into_owned())
}

fn checked_groups(
    named: impl IntoIterator<Item = impl Into<String>>,
    limits: &RosterLimits,
) -> Result<Vec<String>, RosterError> {
    let mut groups = Vec::new();
    let mut seen = BTreeSet::new();
    for group in named.into_iter().map(Into::into) {
        if group.is_empty() {
            return Err(RosterError::EmptyGroup);
        }
        if group.len() > limits.group {
            return Err(RosterError::GroupTooLong);
        }
        if groups.len() == limits.groups {
            return Err(RosterError::TooManyGroups);
        }
        // RFC 6121 §2.3.3 compares groups as resourceparts; one that cannot be made a resourcepart
        // equals only itself.
        let compared =
            ResourcePart::new(&group).map_or_else(|_| group.clone(), |part| part.to_string());
        if !seen.insert(compared) {
            return Err(RosterError::DuplicateGroup);
        }
        groups.push(group);
    }
    Ok(groups)
}

/// What a roster set changes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a plan takes effect only when it is stored and carried out"]
pub(crate) enum SetPlan {
    /// Nothing changes: a result, no push, no new version (rule ROSTER-13).
    Unchanged,
    /// Store this item, answer, push it (rule ROSTER-10).
    Put(Item),
    /// Remove an item.
    Remove(Removal),
}

/// The removal of an item (rule ROSTER-15,
/// [RFC 6121 §2.5.2](https://www.rfc-editor.org/rfc/rfc6121#section-2.5.2)): delete it with its flags,
/// drop the contact's request, answer, push, then send the farewells.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Removal {
    /// The contact.
    pub(crate) contact: BareJid,
    /// Whether a request of the contact is stored, which goes too.
    pub(crate) request: bool,
    /// What the contact is told, in order.
    pub(crate) farewells: &'static [Farewell],
}

impl fmt::Debug for Removal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Removal")
            .field("request", &self.request)
            .field("farewells", &self.farewells)
            .finish_non_exhaustive()
    }
}

/// Decides what a roster set of the account `own` does to its roster. Nothing is changed yet.
///
/// # Errors
///
/// [`RosterError::OwnJid`] (unless it is the removal of such an item), [`RosterError::UnknownItem`] for a
/// removal (rule ROSTER-14) and those of
/// [`RosterLimits::allow`] (rule LIMIT-15).
pub(crate) fn plan_set(
    roster: &Roster,
    own: &BareJid,
    set: &RosterSet,
    limits: &RosterLimits,
) -> Result<SetPlan, RosterError> {
    let contact = &set.contact;
    let present = roster.item(contact);
    match &set.change {
        Change::Remove if present.is_some() => Ok(SetPlan::Remove(Removal {
            contact: contact.clone(),
            request: roster.has_request(contact.as_str()),
            // A store may hold an item of the account itself: there is nobody to tell.
            farewells: match contact == own {
                true => &[],
                false => removal(roster.standing(contact.as_str()).state),
            },
        })),
        _ if contact == own => Err(RosterError::OwnJid),
        Change::Remove => Err(RosterError::UnknownItem),
        Change::Update { name, groups } => {
            let mut item = present.clone().unwrap_or_else(|| Item::new(contact.clone()));
            item.name.clone_from(name);
            item.groups.clone_from(groups);
            if present.as_ref() == Some(&item) {
                return Ok(SetPlan::Unchanged);
            }
            limits.allow(roster, &item)?;
            Ok(SetPlan::Put(item))
        }
    }
}

/// Why a roster get or set is refused; always the client's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RosterError {
    /// A get names an item.
    #[error("a roster get holds an item")]
    ItemInGet,
    /// A set names no item or several.
    #[error("a roster set does not hold exactly one item")]
    NotOneItem,
    /// The item has no JID.
    #[error("the item has no jid")]
    NoJid,
    /// The item's JID is invalid.
    #[error("the jid of the item is not valid")]
    InvalidJid,
    /// The item's JID has a resource.
    #[error("the jid of the item has a resource")]
    FullJid,
    /// Nobody is a contact of their own.
    #[error("the jid of the item is that of the account")]
    OwnJid,
    /// The name is over the limit.
    #[error("the name is too long")]
    NameTooLong,
    /// A group has no name.
    #[error("a group has an empty name")]
    EmptyGroup,
    /// The name of a group is over the limit.
    #[error("the name of a group is too long")]
    GroupTooLong,
    /// The item is in more groups than the limit.
    #[error("the item has too many groups")]
    TooManyGroups,
    /// Two groups have one name.
    #[error("a group is named twice")]
    DuplicateGroup,
    /// The item to remove does not exist.
    #[error("there is no such item")]
    UnknownItem,
    /// The item is over the limit as a whole.
    #[error("the item is too large")]
    ItemTooLarge,
    /// The roster is full.
    #[error("the roster has too many items")]
    TooManyItems,
    /// The roster is full in bytes.
    #[error("the items of the roster are too large together")]
    TooLarge,
}

impl RosterError {
    /// The stanza error that the client gets
    /// ([RFC 6121 §2.3.3](https://www.rfc-editor.org/rfc/rfc6121#section-2.3.3)).
    #[must_use]
    pub(crate) const fn condition(self) -> Condition {
        match self {
            Self::ItemInGet
            | Self::NotOneItem
            | Self::NoJid
            | Self::FullJid
            | Self::DuplicateGroup => Condition::BadRequest,
            Self::InvalidJid => Condition::JidMalformed,
            Self::OwnJid => Condition::NotAllowed,
            Self::NameTooLong
            | Self::EmptyGroup
            | Self::GroupTooLong
            | Self::TooManyGroups
            | Self::ItemTooLarge => Condition::NotAcceptable,
            Self::UnknownItem => Condition::ItemNotFound,
            Self::TooManyItems | Self::TooLarge => Condition::PolicyViolation,
        }
    }
}

impl From<RosterError> for StanzaError {
    fn from(error: RosterError) -> Self {
        let answer = Self::new(error.condition());
        match error {
            // A smaller roster would be accepted, waiting would not help (LIMIT-15).
            RosterError::TooManyItems | RosterError::TooLarge => {
                answer.with_type(ErrorType::Modify).with_cause(error)
            }
            RosterError::NameTooLong
            | RosterError::GroupTooLong
            | RosterError::TooManyGroups
            | RosterError::ItemTooLarge => answer.with_cause(error),
            _ => answer,
        }
    }
}

#[cfg(test)]
mod tests;
