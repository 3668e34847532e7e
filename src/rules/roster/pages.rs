//! Roster items in pages: a change rewrites one page, and shares all others with the former list.

use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::iter::once;
use std::slice;
use std::sync::Arc;

use super::{Item, Stray, Subscription};

/// Rows ordered by JID, packed into pages that clones share. No page is empty.
#[derive(Clone, Default)]
pub(super) struct Pages(Vec<Arc<Page>>);

/// Some rows that stand beside each other, and the texts of all of them.
#[derive(Clone)]
struct Page {
    rows: Box<[Row]>,
    text: Box<str>,
}

/// What is no text of a row.
#[derive(Clone, Copy)]
struct Row {
    /// Where its text stands in the page, in bytes.
    start: u32,
    len: u32,
    /// At most 3071 (RFC 7622 §3.1).
    jid_len: u16,
    subscription: Subscription,
    flags: u8,
    /// Of the JID: the owner of the roster says how it is made.
    hash: u32,
}

const ASK: u8 = 1;
const APPROVED: u8 = 2;
const SEPARATOR: char = '\0';

/// Most rows of a page: to copy them costs about as much as the list of the pages of a large roster.
const MOST_ROWS: usize = 32;
/// Bytes of text that several rows share a page for.
const MOST_TEXT: usize = 8 << 10;

/// Where a row stands, or would: the page, and the row in it.
#[derive(Clone, Copy)]
pub(super) struct Position {
    page: usize,
    row: usize,
}

impl Pages {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// The items in any order; of two with one JID the last counts.
    pub(super) fn from_items(items: impl IntoIterator<Item = Item>) -> Self {
        let items: Vec<Item> = items.into_iter().collect();
        // The sort is stable, so after the reversal the last of each JID comes first and stays.
        let mut items: Vec<&Item> = items.iter().rev().collect();
        items.sort_by(|a, b| a.jid.as_str().cmp(b.jid.as_str()));
        items.dedup_by(|later, earlier| later.jid == earlier.jid);
        let mut pages = Vec::new();
        let mut draft = Draft::default();
        for item in items {
            if draft.is_full_with(text_len(item)) {
                pages.extend(draft.finish());
            }
            let row = write_item(&mut draft.text, item);
            draft.rows.push(row);
        }
        pages.extend(draft.finish());
        pages.shrink_to_fit();
        Self(pages)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|page| page.rows.len()).sum()
    }

    pub(super) fn iter(&self) -> Rows<'_> {
        Rows { pages: self.0.iter(), text: "", rows: [].iter() }
    }

    pub(super) fn get(&self, place: Position) -> Option<ItemRef<'_>> {
        self.0.get(place.page)?.entry(place.row)
    }

    pub(super) fn find(&self, jid: &str) -> Result<Position, Position> {
        let first = |page: &Arc<Page>| page.entry(0).is_some_and(|entry| entry.jid() <= jid);
        let page = self.0.partition_point(first).saturating_sub(1);
        let Some(found) = self.0.get(page) else { return Err(Position { page, row: 0 }) };
        let row =
            found.rows.binary_search_by(|row| ItemRef { text: &found.text, row }.jid().cmp(jid));
        row.map(|row| Position { page, row }).map_err(|row| Position { page, row })
    }

    pub(super) fn insert(&mut self, place: Position, row: &Packed) {
        self.edit(place, 0, Some(row));
    }

    pub(super) fn replace(&mut self, place: Position, row: &Packed) {
        self.edit(place, 1, Some(row));
    }

    pub(super) fn remove(&mut self, place: Position) {
        self.edit(place, 1, None);
    }

    /// Rewrites a page with `row` in the place of `gone` rows. A page that grows too large becomes
    /// two; one that becomes small takes in the next if that is small as well.
    fn edit(&mut self, place: Position, gone: usize, row: Option<&Packed>) {
        let Position { page, row: at } = place;
        let old = self.0.get(page);
        let next = self.0.get(page.saturating_add(1));
        let next = next.filter(|next| {
            row.is_none() && next.is_small() && old.is_some_and(|old| old.is_small())
        });
        let end = page.saturating_add(usize::from(old.is_some()) + usize::from(next.is_some()));
        let entries = || {
            let before = old.into_iter().flat_map(|old| old.entries()).take(at);
            let after = old.into_iter().flat_map(|old| old.entries()).skip(at.saturating_add(gone));
            let next = next.into_iter().flat_map(|next| next.entries());
            before.chain(row.map(Packed::entry)).chain(after).chain(next)
        };
        let (rows, text) = entries().fold((0_usize, 0_usize), |(rows, text), entry| {
            (rows.saturating_add(1), text.saturating_add(entry.text().len()))
        });
        let is_too_large = rows > MOST_ROWS || (rows > 1 && text > MOST_TEXT);
        // Items that are loaded or added in their order fill the last page.
        let is_last =
            end == self.0.len() && row.is_some() && old.is_some_and(|old| at == old.rows.len());
        let first = match (is_too_large, is_last) {
            (false, _) => rows,
            (true, true) => rows.saturating_sub(1),
            (true, false) => rows / 2,
        };
        let part = |skip, take| {
            let mut draft =
                Draft { rows: Vec::with_capacity(rows), text: String::with_capacity(text) };
            entries().skip(skip).take(take).for_each(|entry| draft.push(entry));
            draft.finish()
        };
        let pages = [part(0, first), part(first, rows)];
        self.0.splice(page..end, pages.into_iter().flatten());
        if self.0.capacity() > self.0.len().saturating_add(self.0.len() / 4) {
            self.0.shrink_to_fit();
        }
    }

    #[cfg(all(test, feature = "server"))]
    pub(super) const fn pages(&self) -> usize {
        self.0.len()
    }

    #[cfg(all(test, feature = "server"))]
    pub(super) fn rows_not_in(&self, other: &Self) -> usize {
        let is_new = |page: &&Arc<Page>| !other.0.iter().any(|one| Arc::ptr_eq(one, page));
        self.0.iter().filter(is_new).map(|page| page.rows.len()).sum()
    }

    /// Keeps with each row what `hash` makes of its JID. Pages that `known` has too keep what they have.
    pub(super) fn set_hashes(&mut self, known: &Self, hash: impl Fn(&str) -> u32) {
        let is_same = |(one, other): &(&Arc<Page>, &Arc<Page>)| Arc::ptr_eq(one, other);
        let same_first = self.0.iter().zip(&known.0).take_while(is_same).count();
        let (rest, other) = (self.0.get(same_first..), known.0.get(same_first..));
        let (rest, other) = (rest.unwrap_or_default(), other.unwrap_or_default());
        let same_last = rest.iter().rev().zip(other.iter().rev()).take_while(is_same).count();
        let changed = rest.len().saturating_sub(same_last);
        for page in self.0.iter_mut().skip(same_first).take(changed) {
            let page = Arc::make_mut(page);
            for row in &mut page.rows {
                row.hash = hash(ItemRef { text: &page.text, row }.jid());
            }
        }
    }
}

impl Page {
    fn entry(&self, row: usize) -> Option<ItemRef<'_>> {
        self.rows.get(row).map(|row| ItemRef { text: &self.text, row })
    }

    fn entries(&self) -> impl Iterator<Item = ItemRef<'_>> {
        self.rows.iter().map(|row| ItemRef { text: &self.text, row })
    }

    const fn is_small(&self) -> bool {
        self.rows.len() < MOST_ROWS / 3 && self.text.len() < MOST_TEXT / 3
    }
}

/// One item of a [`Roster`](super::Roster), seen in place.
#[derive(Clone, Copy)]
pub struct ItemRef<'a> {
    /// Where the item's own text stands among others.
    text: &'a str,
    row: &'a Row,
}

impl<'a> ItemRef<'a> {
    /// The contact's normalised bare JID.
    #[must_use]
    #[inline]
    pub fn jid(&self) -> &'a str {
        let start = self.row.start as usize;
        self.text.get(start..start + usize::from(self.row.jid_len)).unwrap_or_default()
    }

    /// The JID, the name and the groups.
    fn text(&self) -> &'a str {
        let start = self.row.start as usize;
        self.text.get(start..start + self.row.len as usize).unwrap_or_default()
    }

    /// Whether a client sees no difference.
    pub(super) fn shows_as(&self, other: ItemRef<'_>) -> bool {
        let state = |row: &Row| (row.subscription, row.flags);
        self.text() == other.text() && state(self.row) == state(other.row)
    }

    /// The hash of the JID that was kept last; 0 where none was.
    pub(crate) const fn hash(&self) -> u32 {
        self.row.hash
    }

    /// How many bytes it takes in a roster result at most, whatever the state of the subscription:
    /// what presence does must not depend on how full a roster is.
    #[expect(clippy::indexing_slicing, reason = "a byte is an index into 256 entries")]
    pub(super) fn most_bytes(&self) -> usize {
        const EMPTY: &str =
            "<item jid='' subscription='none' ask='subscribe' approved='true'></item>";
        let most = |byte| usize::from(MOST_WRITTEN[usize::from(byte)]);
        EMPTY.len() + self.text().bytes().map(most).sum::<usize>()
    }

    /// Of all that a client sees of the item.
    pub(super) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write(self.text().as_bytes());
        hasher.write(&[self.row.subscription as u8, self.row.flags]);
        hasher.finish()
    }

    /// The name the user gave it.
    #[must_use]
    pub fn name(&self) -> Option<&'a str> {
        self.text().split(SEPARATOR).nth(1).filter(|name| !name.is_empty())
    }

    /// Its groups, in the order in which they were set.
    pub fn groups(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.text().split(SEPARATOR).skip(2)
    }

    /// The subscription.
    #[must_use]
    pub const fn subscription(&self) -> Subscription {
        self.row.subscription
    }

    /// Pending Out: the user asked and has no answer yet.
    #[must_use]
    pub const fn ask(&self) -> bool {
        self.row.flags & ASK != 0
    }

    /// Pre-approved.
    #[must_use]
    pub const fn approved(&self) -> bool {
        self.row.flags & APPROVED != 0
    }
}

#[expect(clippy::indexing_slicing, reason = "a byte is an index into 256 entries")]
static MOST_WRITTEN: [u8; 256] = {
    let mut most = [0; 256];
    let mut byte = 0_u8;
    loop {
        most[byte as usize] = most_written(byte);
        if byte == u8::MAX {
            break most;
        }
        byte += 1;
    }
};

/// How many bytes are written for one byte of an item's text at most.
const fn most_written(byte: u8) -> u8 {
    match byte {
        // Between the parts.
        0 => b"<group></group>".len() as u8,
        b'&' | 1..=0x1F => 5,
        b'<' | b'>' => 4,
        b'\'' | b'"' => 6,
        _ => 1,
    }
}

impl fmt::Debug for ItemRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ItemRef")
            .field("subscription", &self.subscription())
            .field("ask", &self.ask())
            .field("approved", &self.approved())
            .finish_non_exhaustive()
    }
}

/// A page that is being made.
#[derive(Default)]
struct Draft {
    rows: Vec<Row>,
    text: String,
}

impl Draft {
    fn is_full_with(&self, more: usize) -> bool {
        let text = self.text.len().saturating_add(more);
        self.rows.len() >= MOST_ROWS || (!self.rows.is_empty() && text > MOST_TEXT)
    }

    fn push(&mut self, entry: ItemRef<'_>) {
        self.rows.push(Row { start: offset(self.text.len()), ..*entry.row });
        self.text.push_str(entry.text());
    }

    /// The page so far, if there is anything; the next one can be begun.
    fn finish(&mut self) -> Option<Arc<Page>> {
        let page = Page { rows: self.rows.as_slice().into(), text: self.text.as_str().into() };
        self.rows.clear();
        self.text.clear();
        (!page.rows.is_empty()).then(|| Arc::new(page))
    }
}

/// Appends the JID, the name and each group, with a U+0000 between them: no XML document can hold
/// that character, so names and groups need no length fields.
fn write_item(out: &mut String, item: &Item) -> Row {
    let row = write_text(out, item.jid.as_str(), item.name.as_deref(), &item.groups);
    Row {
        subscription: item.subscription,
        flags: if item.ask { ASK } else { 0 } | if item.approved { APPROVED } else { 0 },
        ..row
    }
}

fn write_text(out: &mut String, jid: &str, name: Option<&str>, groups: &[String]) -> Row {
    let start = out.len();
    out.push_str(jid);
    for part in once(name.unwrap_or_default()).chain(groups.iter().map(String::as_str)) {
        out.push(SEPARATOR);
        if part.contains(SEPARATOR) {
            out.extend(part.split(SEPARATOR));
        } else {
            out.push_str(part);
        }
    }
    Row {
        start: offset(start),
        len: offset(out.len().saturating_sub(start)),
        jid_len: u16::try_from(jid.len()).unwrap_or(u16::MAX),
        subscription: Subscription::None,
        flags: 0,
        hash: 0,
    }
}

/// No text is nearly 4 GiB long.
fn offset(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// About as long as the text of an item.
fn text_len(item: &Item) -> usize {
    item.jid.as_str().len()
        + item.name.iter().chain(&item.groups).map(|part| part.len() + 1).sum::<usize>()
}

/// One row on its way in.
pub(super) struct Packed {
    text: String,
    row: Row,
}

impl Packed {
    pub(super) fn new(item: &Item) -> Self {
        let mut text = String::with_capacity(text_len(item) + 1);
        let row = write_item(&mut text, item);
        Self { text, row }
    }

    pub(super) fn stray(stray: &Stray) -> Self {
        let mut text = String::new();
        let row = write_text(&mut text, &stray.jid, stray.name.as_deref(), &stray.groups);
        Self { text, row }
    }

    pub(super) fn entry(&self) -> ItemRef<'_> {
        ItemRef { text: &self.text, row: &self.row }
    }

    pub(super) const fn set_hash(&mut self, hash: u32) {
        self.row.hash = hash;
    }
}

/// All rows, in their order.
#[derive(Clone)]
pub(super) struct Rows<'a> {
    pages: slice::Iter<'a, Arc<Page>>,
    text: &'a str,
    rows: slice::Iter<'a, Row>,
}

impl<'a> Iterator for Rows<'a> {
    type Item = ItemRef<'a>;

    #[inline]
    fn next(&mut self) -> Option<ItemRef<'a>> {
        loop {
            if let Some(row) = self.rows.next() {
                return Some(ItemRef { text: self.text, row });
            }
            let page = self.pages.next()?;
            (self.text, self.rows) = (&page.text, page.rows.iter());
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let further: usize = self.pages.as_slice().iter().map(|page| page.rows.len()).sum();
        let left = self.rows.len().saturating_add(further);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Rows<'_> {}
