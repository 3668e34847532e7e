//! A server that is killed while it writes: what it acknowledged is there.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::thread;

use super::*;

/// Set in the process that is to be killed: the file it writes.
const FILE: &str = "XMPP_SESSION_TEST_KILLED_WRITER";
const WRITERS: u32 = 4;

fn end(writer: u32, side: char) -> BareJid {
    jid(&format!("writer{writer}-{side}@example.com"))
}

fn contact(n: u64) -> String {
    format!("contact{n}@example.net")
}

/// Writes pairs from several threads, and says of each that it is done once it is.
fn write_until_killed(path: &str) {
    let store = Arc::new(Sqlite::open(path).unwrap());
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = Arc::clone(&store);
            thread::spawn(move || {
                let [a, b] = [end(writer, 'a'), end(writer, 'b')];
                for n in block_on(store.rosters().load(&a)).unwrap().version + 1.. {
                    let pair = store.rosters().apply_pair(
                        &a,
                        put(n, &contact(n)),
                        &b,
                        put(n, &contact(n)),
                    );
                    block_on(pair).unwrap();
                    // One write for each line, so that none is torn; not captured, unlike `println!`.
                    let line = format!("acknowledged {writer} {n}\n");
                    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
                    std::io::stdout().lock().flush().unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
}

#[test]
fn sub_4_roster_10_a_killed_writer_leaves_all_it_acknowledged_and_no_half_pair() {
    if let Ok(path) = std::env::var(FILE) {
        return write_until_killed(&path);
    }
    let directory = Directory::new();
    let mut acknowledged = BTreeSet::new();
    for lines in [1, 7, 40, 133, 300] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("store::sqlite::tests::kill::sub_4_roster_10_a_killed_writer_leaves_all_it_acknowledged_and_no_half_pair")
            .env(FILE, directory.file())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut seen = 0;
        // What is in the pipe when the child dies was acknowledged too: read on to its end.
        for line in output.lines().map(Result::unwrap) {
            let Some((_, rest)) = line.split_once("acknowledged ") else { continue };
            let (writer, n) = rest.split_once(' ').unwrap();
            acknowledged.insert((writer.parse::<u32>().unwrap(), n.parse::<u64>().unwrap()));
            seen += 1;
            if seen == lines {
                child.kill().unwrap();
            }
        }
        assert!(!child.wait().unwrap().success());
        assert!(seen >= lines, "the writer ended by itself");

        let store = Sqlite::open(directory.file()).unwrap();
        for writer in 0..WRITERS {
            let [a, b] =
                ['a', 'b'].map(|side| block_on(store.rosters().load(&end(writer, side))).unwrap());
            assert!(a == b, "one side only");
            let found: BTreeSet<_> = a.items.iter().map(|item| item.jid.to_string()).collect();
            for (_, n) in acknowledged.range((writer, 0)..(writer + 1, 0)) {
                assert!(found.contains(&contact(*n)), "acknowledged and lost");
            }
        }
    }
}
