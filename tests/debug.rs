//! Promise 9 by construction (rule SEC-6): nothing that `Debug` of a type of this crate prints can hold a
//! JID, a body, a token or a password.
//!
//! The sources are read. A derived `Debug` may have fields of harmless types only: numbers, times, program
//! text, and types of this crate that have a `Debug` of their own, which is looked at too. One that is
//! written may print such fields, lengths, and whether something is there. What this test does not
//! understand it refuses: write it in one of these forms, or, where it is harmless for a reason that
//! cannot be seen here, name it in [`HARMLESS`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Types of others that hold nothing of anybody.
const TYPES: [&str; 25] = [
    "bool",
    "i8",
    "i64",
    "u8",
    "u16",
    "u32",
    "u64",
    "usize",
    "Duration",
    "SystemTime",
    "Option",
    "Vec",
    "Arc",
    "Box",
    "Mutex",
    "AtomicU64",
    "AtomicUsize",
    "SmallVec",
    "PhantomData",
    "NonZeroU32",
    "Infallible",
    "str",
    "Self",
    "Range",
    "Nanos",
];

/// What is printed and harmless, by the type that prints it; why stands beside it.
const HARMLESS: &[(&str, &str)] = &[
    // Said by the test that uses it.
    ("Recorder", "state.refuse"),
    ("Recorder", "state.closed"),
    ("Outbox", "state.waiting()"),
    ("Outbox", "state.written"),
    ("Outbox", "state.closed"),
    // Chosen among words.
    ("Driver", "state"),
    ("Parser", "state"),
    // Numbers.
    ("Copies", "count"),
    ("SessionHandle", "self.0.id.0"),
    ("SessionInfo", "self.id.0"),
    ("Event", "self.session.id()"),
    ("Server", "self.0.registry.counts()"),
    ("Blocking", "self.0.items"),
    ("Memory", "state.used"),
    ("Incarnation", "self.0"),
    ("Incarnation", "\"{:x}\""),
    ("Slot", "self.0"),
    // Words.
    ("Token", "self.mechanism"),
    ("Transition", "if self.approved { \" approved\" } else { \"\" }"),
    ("Session", "S::NAME"),
    ("Shutdown", "self.pace"),
    ("RegistryBuilder", "self.settings.conflict"),
    // What a database says before a row of it was read.
    ("OpenError", "Error"),
    ("OpenError", "dyn"),
    ("OpenError", "Send"),
    ("OpenError", "Sync"),
    // Names of nodes and clusters, which the host has chosen, and of instances of an engine.
    ("Answer", "dyn"),
    ("Lease", "dyn"),
    ("Member", "dyn"),
    ("Record", "dyn"),
    ("Cluster", "self.name"),
    ("Redis", "self.leases.name"),
    ("RedisBuilder", "self.name"),
    ("Postgres", "self.shared.name"),
    ("PostgresBuilder", "self.name"),
    ("PostgresConfig", "self.schema"),
    // What an engine or a database says.
    ("EngineError", "dyn"),
    ("EngineError", "Error"),
    ("EngineError", "Send"),
    ("EngineError", "Sync"),
    ("ConnectError", "dyn"),
    ("ConnectError", "Error"),
    ("ConnectError", "Send"),
    ("ConnectError", "Sync"),
    ("PostgresError", "dyn"),
    ("PostgresError", "Error"),
    ("PostgresError", "Send"),
    ("PostgresError", "Sync"),
    ("RedisError", "Cause"),
    ("RedisError", "dyn"),
    ("ConnectError", "i32"),
    ("ConnectError", "String"),
    // The slots of a store, by number.
    ("Fences", "HashMap"),
    // Files of the host's, and what is wrong with them.
    ("PemError", "PathBuf"),
    ("PemError", "Error"),
];

/// A type, where it is declared.
struct Type {
    name: String,
    file: String,
    is_public: bool,
    derives: bool,
    is_enum: bool,
    body: String,
}

/// A `Debug` that is written.
struct Written {
    name: String,
    file: String,
    body: String,
}

#[cfg(test)]
fn sources(directory: &Path, into: &mut Vec<(String, String)>) {
    let mut entries: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && name != "tests" {
            sources(&path, into);
        } else if name.ends_with(".rs")
            && !["tests.rs", "testing.rs", "fuzzing.rs", "common.rs"].contains(&name)
        {
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            into.push((path.display().to_string(), code.collect::<Vec<_>>().join("\n")));
        }
    }
}

/// What is inside of the bracket that `text` begins with, literals skipped.
#[cfg(test)]
fn inside(text: &str) -> &str {
    let (mut depth, mut quoted, mut last) = (0, false, ' ');
    for (at, c) in text.char_indices() {
        match c {
            '"' if last != '\\' => quoted = !quoted,
            '{' | '(' | '[' if !quoted => depth += 1,
            '}' | ')' | ']' if !quoted => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[1..at];
        }
        last = c;
    }
    panic!("no end of bracket: {text:.60}");
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// Pieces between commas that are in no bracket.
fn pieces(text: &str) -> Vec<&str> {
    let (mut pieces, mut depth, mut start, mut quoted) = (Vec::new(), 0, 0, false);
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '(' | '[' | '{' | '<' if !quoted => depth += 1,
            ')' | ']' | '}' if !quoted => depth -= 1,
            '>' if !quoted && !text[..at].ends_with(['-', '=']) => depth -= 1,
            ',' if !quoted && depth == 0 => {
                pieces.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    pieces.push(&text[start..]);
    pieces.into_iter().map(str::trim).filter(|piece| !piece.is_empty()).collect()
}

#[cfg(test)]
fn types(file: &str, text: &str) -> Vec<Type> {
    let mut found = Vec::new();
    for keyword in ["struct ", "enum "] {
        for (at, _) in text.match_indices(keyword) {
            let line_start = text[..at].rfind('\n').map_or(0, |n| n + 1);
            let visibility = text[line_start..at].trim();
            if !(visibility.is_empty() || visibility.starts_with("pub")) || visibility.contains('"')
            {
                continue;
            }
            let head = &text[at + keyword.len()..];
            // The attributes before it.
            let is_before = |line: &&str| {
                let line = line.trim();
                !(line.is_empty() || line.starts_with('}') || line.ends_with([';', '{']))
            };
            let attributes = text[..line_start].lines().rev().take_while(is_before);
            let attributes = attributes.collect::<Vec<_>>().concat();
            let derives = attributes.split("derive(").skip(1).any(|derive| {
                derive.split(')').next().unwrap().split(',').any(|name| name.trim() == "Debug")
            });
            let Some(open) = head.find(['{', '(', ';']) else { continue };
            let body = if head[open..].starts_with(';') { "" } else { inside(&head[open..]) };
            let (name, file) = (word(head).to_owned(), file.to_owned());
            let is_enum = keyword == "enum ";
            let is_public = visibility == "pub";
            let body = body.to_owned();
            found.push(Type { name, file, is_public, derives, is_enum, body });
        }
    }
    found
}

#[cfg(test)]
fn written(file: &str, text: &str) -> Vec<Written> {
    let all = text.match_indices("Debug for ").filter(|(at, _)| {
        let line = text[..*at].rfind('\n').map_or(0, |n| n + 1);
        text[line..*at].starts_with("impl")
    });
    all.map(|(at, mark)| {
        let rest = &text[at + mark.len()..];
        let body = inside(&rest[rest.find(" {").unwrap() + 1..]);
        Written { name: word(rest).to_owned(), file: file.to_owned(), body: body.to_owned() }
    })
    .collect()
}

/// Whether a type of this text may be printed. `known` have a `Debug` that is looked at.
fn is_harmless(owner: &str, type_: &str, known: &BTreeSet<String>) -> Result<(), String> {
    let type_ =
        type_.replace("&'static str", "bool").replace("crate::", "").replace("stream::", "");
    let is_text = ["[u8", "<u8", "str", "dyn"].iter().any(|text| type_.contains(text));
    let mut rest = type_.as_str();
    while let Some(at) = rest.find(|c: char| c.is_alphabetic()) {
        let name = word(&rest[at..]);
        let is_lifetime = rest[..at].ends_with('\'');
        let is_parameter = name.len() == 1;
        let is_path = rest[at + name.len()..].starts_with("::");
        let is_known = TYPES.contains(&name) || known.contains(name);
        let is_named = HARMLESS.contains(&(owner, name));
        if !(is_lifetime || is_parameter || is_path || is_known || is_named || name == "pub") {
            return Err(format!("a field of type {name}"));
        }
        rest = &rest[at + name.len()..];
    }
    if is_text && !HARMLESS.contains(&(owner, "dyn")) {
        return Err(format!("a field of type {type_}"));
    }
    Ok(())
}

/// The types of fields: of a struct, or of all variants of an enum.
fn fields(type_: &Type) -> Vec<(String, String)> {
    let body = without_attributes(&type_.body);
    let split = |piece: &str| {
        let piece = piece.trim_start_matches("pub ");
        let piece = if piece.starts_with("pub(") {
            piece.split_once(") ").map_or("", |p| p.1)
        } else {
            piece
        };
        match piece.split_once(": ") {
            Some((name, type_)) => (name.trim().to_owned(), type_.to_owned()),
            None => (String::new(), piece.to_owned()),
        }
    };
    if !type_.is_enum {
        return pieces(&body).into_iter().map(split).collect();
    }
    let variants = pieces(&body).into_iter().filter_map(|variant| {
        let open = variant.find(['(', '{'])?;
        Some(inside(&variant[open..]).to_owned())
    });
    variants.flat_map(|inner| pieces(&inner).into_iter().map(split).collect::<Vec<_>>()).collect()
}

fn without_attributes(body: &str) -> String {
    let mut out = String::new();
    let mut rest = body;
    while let Some(at) = rest.find("#[") {
        out.push_str(&rest[..at]);
        let attribute = inside(&rest[at + 1..]);
        rest = &rest[at + 3 + attribute.len()..];
    }
    out.push_str(rest);
    out
}

/// What a written `Debug` prints.
fn printed(body: &str) -> Vec<String> {
    let mut printed = Vec::new();
    for call in [".field(", ".entry(", ".key(", ".value(", ".entries(", "write!(", "format!("] {
        for (at, _) in body.match_indices(call) {
            let arguments = inside(&body[at + call.len() - 1..]);
            let arguments = pieces(arguments).into_iter().filter(|argument| *argument != "f");
            // Of a macro the first is the text: what it names in itself is not seen.
            let texts =
                arguments.filter(|argument| !argument.starts_with('"') || argument.contains('{'));
            printed.extend(texts.map(|text| text.trim_start_matches('&').to_owned()));
        }
    }
    for (at, call) in body.match_indices("write_str(") {
        let argument = inside(&body[at + call.len() - 1..]);
        let is_chosen =
            argument.trim_start().starts_with("match self") && !argument.contains("=> self");
        if !argument.starts_with('"') && !is_chosen {
            printed.push(argument.to_owned());
        }
    }
    if body.contains("debug_struct(S::NAME") {
        printed.push("S::NAME".to_owned());
    }
    printed
}

/// Of the placeholders in a text, those that name a variable.
fn is_plain_text(argument: &str) -> bool {
    argument.starts_with('"') && argument.replace("{:?}", "").replace("{}", "").find('{').is_none()
}

#[test]
fn sec_6_debug_of_no_type_can_print_what_is_somebodys() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let types: Vec<Type> = files.iter().flat_map(|(file, text)| types(file, text)).collect();
    let written: Vec<Written> = files.iter().flat_map(|(file, text)| written(file, text)).collect();
    let derived = types.iter().filter(|type_| type_.derives);
    let known: BTreeSet<String> =
        derived.map(|t| t.name.clone()).chain(written.iter().map(|w| w.name.clone())).collect();
    assert!(types.len() > 150 && written.len() > 70 && known.len() > 120, "the sources were read");

    let mut wrong = BTreeMap::new();
    // What is public, and what that prints.
    let mut names: Vec<&str> = types.iter().filter(|t| t.is_public).map(|t| &*t.name).collect();
    let mut seen = BTreeSet::new();
    while let Some(name) = names.pop() {
        if !seen.insert(name) {
            continue;
        }
        for type_ in types.iter().filter(|type_| type_.derives && type_.name == name) {
            for (_, field) in fields(type_) {
                if let Err(why) = is_harmless(name, &field, &known) {
                    wrong.insert((type_.file.clone(), name.to_owned()), why);
                }
                let words: Vec<&str> =
                    field.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
                let mentioned = known.iter().filter(|known| words.contains(&known.as_str()));
                names.extend(mentioned.map(String::as_str));
            }
        }
    }
    for Written { name, file, body } in &written {
        let own = types.iter().find(|type_| type_.name == *name && type_.file == *file);
        let own = own.map(fields).unwrap_or_default();
        let text = &files.iter().find(|(other, _)| other == file).unwrap().1;
        for expression in printed(body) {
            let measures = [".len()", ".is_some()", ".is_ok()", ".is_empty()"];
            let field =
                expression.strip_prefix("self.").and_then(|name| own.iter().find(|f| f.0 == name));
            let method = expression.strip_prefix("self.").and_then(|rest| rest.strip_suffix("()"));
            let returns = method.and_then(|name| {
                let declared = text.split(&format!("fn {name}(&self) -> ")).nth(1)?;
                declared.split([';', '{']).next()
            });
            let type_ = field.map(|field| field.1.as_str()).or(returns);
            let understood = measures.iter().any(|measure| expression.ends_with(measure))
                || is_plain_text(&expression)
                || HARMLESS.contains(&(name, &expression))
                || type_.is_some_and(|type_| is_harmless(name, type_, &known).is_ok());
            if !understood {
                wrong.insert((file.clone(), name.clone()), format!("it prints {expression}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
