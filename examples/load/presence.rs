//! Users who tell their contacts how they are, again and again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use crate::client::Client;
use crate::cost::Cost;
use crate::{Load, Result, SETTLE, all};

pub(crate) async fn run(load: &Arc<Load>, clients: Vec<Client>) -> Result<()> {
    let befriend = |client: Client| {
        let load = Arc::clone(load);
        tokio::spawn(async move { befriend(&load, client).await })
    };
    let clients = all(clients.into_iter().map(befriend)).await?;
    tokio::time::sleep(SETTLE).await;
    let (start, cost) = (Instant::now(), Cost::begin(&load.pids)?);
    let tell = |client: Client| {
        let load = Arc::clone(load);
        tokio::spawn(async move { tell(&load, client).await })
    };
    let clients = all(clients.into_iter().map(tell)).await?;
    let count = load.users * load.contacts * load.rounds;
    let rate = count as f64 / start.elapsed().as_secs_f64();
    cost.tell(count, "presence")?;
    drop(clients);
    println!("{count} presences, each delivered once and in order, {rate:.0} presences/s");
    Ok(())
}

/// Those before and behind a user in the ring of all.
fn contacts(load: &Load, n: usize) -> impl Iterator<Item = usize> {
    let (users, half) = (load.users, load.contacts / 2);
    (1..=half).flat_map(move |far| [(n + far) % users, (n + users - far) % users])
}

/// Asks the contacts for their presence, unless they are all in the roster, and lets them have this user's.
async fn befriend(load: &Load, mut me: Client) -> Result<Client> {
    let get = "<iq xmlns='jabber:client' type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>";
    let mut got = me.ask(get, "</iq>", "").await?;
    let both = ["subscription='both'", "subscription=\"both\""];
    if both.iter().map(|both| got.matches(both).count()).sum::<usize>() == load.contacts {
        return Ok(me);
    }
    // The first half is asked, and asks back: two that ask at the same moment are too much for some servers.
    let asked = contacts(load, me.n).step_by(2);
    let asked: Vec<_> = asked.map(|n| format!("{}@{}", load.name(n), load.domain)).collect();
    for contact in &asked {
        me.say(contact, "subscribe").await?;
    }
    // Of what came before the roster nothing is lost.
    let (mut told, mut granted) = (0, 0);
    loop {
        for tag in got.split('<').filter(|tag| tag.starts_with("presence ")) {
            match attribute(tag, "type").as_deref() {
                Some("subscribe") => {
                    let from = attribute(tag, "from").ok_or("a request of nobody")?;
                    me.say(&from, "subscribed").await?;
                    granted += 1;
                    if !asked.contains(&from) {
                        me.say(&from, "subscribe").await?;
                    }
                }
                Some("subscribed") => told += 1,
                _ => {}
            }
        }
        if told == load.contacts && granted == load.contacts {
            return Ok(me);
        }
        got = me.reader.read_past(">").await?;
    }
}

impl Client {
    async fn say(&mut self, to: &str, kind: &str) -> Result<()> {
        let presence = format!("<presence xmlns='jabber:client' to='{to}' type='{kind}'/>");
        Ok(self.writer.send(&presence).await?)
    }
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let tag = tag.replace('"', "'");
    let (_, value) = tag.split_once(&format!(" {name}='"))?;
    value.split_once('\'').map(|(value, _)| value.to_owned())
}

/// Says the next thing when everything that the contacts have said so far is here.
async fn tell(load: &Load, mut me: Client) -> Result<Client> {
    let mut next: HashMap<String, usize> =
        contacts(load, me.n).map(|contact| (load.jid(contact), 0)).collect();
    let (mut from, mut came) = (String::new(), 0);
    for round in 0..load.rounds {
        me.writer
            .send(&format!("<presence xmlns='jabber:client'><status>{round}</status></presence>"))
            .await?;
        while came < load.contacts * (round + 1) {
            let got = me.reader.read_past(">").await?;
            if got.starts_with("<presence") {
                from = attribute(&got, "from").unwrap_or_default();
            }
            let Some(number) = got.strip_suffix("</status>") else { continue };
            // One's own comes back too.
            let Some(wanted) = next.get_mut(&from) else { continue };
            if number != wanted.to_string() {
                return Err(format!("wanted {wanted} of {from}, got {number}").into());
            }
            *wanted += 1;
            came += 1;
        }
    }
    Ok(me)
}
