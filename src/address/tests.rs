use super::*;

fn texts(
    part: impl Fn(&str) -> Option<String> + Sync,
    inputs: impl Fn(char) -> Vec<String> + Sync,
) {
    let check = |c: char| {
        for text in inputs(c) {
            let Some(once) = part(&text) else { continue };
            assert!(!once.is_empty(), "{text:?} becomes nothing");
            assert_eq!(part(&once).as_ref(), Some(&once), "{text:?}");
        }
    };
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let check = &check;
            scope.spawn(move || {
                (worker..=u32::from(char::MAX))
                    .step_by(4)
                    .filter_map(char::from_u32)
                    .for_each(check);
            });
        }
    });
}

/// A code point alone, and at each end of a name; of planes without characters only one of these.
fn with_letters(c: char) -> Vec<String> {
    if c > '\u{323af}' {
        return vec![format!("a{c}")];
    }
    vec![c.to_string(), format!("a{c}"), format!("{c}lice")]
}

fn local_text(text: &str) -> Option<String> {
    Some(local(text).ok()?.as_str().to_owned())
}

fn domain_text(text: &str) -> Option<String> {
    Some(domain(text).ok()?.as_str().to_owned())
}

fn resource_text(text: &str) -> Option<String> {
    Some(resource(text).ok()?.as_str().to_owned())
}

fn bare_text(text: &str) -> Option<String> {
    Some(bare(text).ok()?.as_str().to_owned())
}

#[test]
fn jid_1_a_localpart_is_stable_whatever_it_is_made_of() {
    texts(local_text, with_letters);
}

#[test]
fn jid_1_a_domain_is_stable_whatever_it_is_made_of() {
    texts(domain_text, with_letters);
    texts(domain_text, |c| if c > '\u{323af}' { Vec::new() } else { vec![format!("{c}.z")] });
}

#[test]
fn jid_1_a_resource_is_stable_whatever_it_is_made_of() {
    texts(resource_text, with_letters);
}
