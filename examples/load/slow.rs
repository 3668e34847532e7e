//! How long messages take, with and without slow readers beside them.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use crate::client::Client;
use crate::readers::{Readers, SENDERS, flood, read};
use crate::{Load, Result, all, log_in, resident};

/// Before each turn, for the readers to catch up or to fall behind.
const SETTLE: Duration = Duration::from_secs(3);
/// How often the server's memory is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Parts of a thousand messages that took at most so long.
pub(crate) const QUANTILES: [(&str, usize); 4] =
    [("median", 500), ("99 %", 990), ("99.9 %", 999), ("max", 1000)];

pub(crate) async fn run(load: Arc<Load>, mut clients: Vec<Client>) -> Result<()> {
    let readers = Arc::new(Readers::default());
    let mut others = JoinSet::new();
    for nth in 0..load.slow {
        others.spawn(read(Arc::clone(&load), nth, Arc::clone(&readers)));
    }
    let first = load.users + load.slow;
    for sender in log_in(&load, first..first + load.slow * SENDERS).await? {
        others.spawn(flood(Arc::clone(&load), sender, Arc::clone(&readers)));
    }
    let dropped = || readers.dropped.iter().map(|count| count.load(Ordering::Relaxed)).sum();

    println!("ms per message");
    print!("{:>5} {:>7} {:>8}", "round", "readers", "messages");
    QUANTILES.iter().for_each(|(name, _)| print!(" {name:>8}"));
    println!(" {:>7} {:>7}", "dropped", "MiB");
    let each = load.rate * load.seconds / load.users;
    let mut turns = [Vec::new(), Vec::new()];
    for turn in 0..2 * load.rounds {
        let slow = turn % 2 == 1;
        readers.slow.store(slow, Ordering::Relaxed);
        sleep(SETTLE).await;
        let before: usize = dropped();
        let numbers = turn * each..(turn + 1) * each;
        let (back, took, memory) = measure(&load, clients, numbers, &mut others).await?;
        clients = back;
        let name = if slow { "slow" } else { "normal" };
        print!("{:>5} {name:>7} {:>8}", turn / 2 + 1, took.len());
        quantiles(&took).iter().for_each(|one| print!(" {:>8.3}", ms(*one)));
        println!(" {:>7} {:>7}", dropped() - before, memory >> 20);
        if let Some(turns) = turns.get_mut(usize::from(slow)) {
            turns.push(took);
        }
    }
    for (name, turns) in ["normal", "slow"].into_iter().zip(turns) {
        summary(name, turns);
    }
    all(clients.into_iter().map(|client| tokio::spawn(client.leave()))).await?;
    println!("each message delivered once, in order and unaltered");
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    let [one, none] = readers.dropped.each_ref().map(count);
    println!("dropped {one} times who reads a byte a second, {none} times who reads nothing");
    let (resumed, expired) = (count(&readers.resumed), count(&readers.expired));
    println!("{resumed} sessions resumed, {expired} gone that were to be resumed");
    let (sent, read) = (count(&readers.sent), count(&readers.read));
    println!("{read} of {sent} messages to readers were read");
    // A slow turn is as long as a normal one.
    if read * 4 > sent * 3 {
        return Err("the slow readers were not behind: this run shows nothing".into());
    }
    Ok(())
}

/// One turn: how long each message took, and the most memory that the server had.
async fn measure(
    load: &Arc<Load>,
    clients: Vec<Client>,
    numbers: Range<usize>,
    others: &mut JoinSet<Result<std::convert::Infallible>>,
) -> Result<(Vec<Client>, Vec<Duration>, usize)> {
    let chat = |client: Client| {
        let (load, numbers) = (Arc::clone(load), numbers.clone());
        tokio::spawn(async move { client.chat(&load, numbers).await })
    };
    let mut chats = std::pin::pin!(all(clients.into_iter().map(chat)));
    let (mut looks, mut memory) = (interval(LOOK), 0);
    let done = loop {
        tokio::select! {
            done = &mut chats => break done?,
            Some(failed) = others.join_next() => match failed? {
                Err(error) => return Err(error),
                Ok(never) => match never {},
            },
            _ = looks.tick() => if let Some(pid) = load.pid {
                memory = memory.max(resident(pid)?);
            },
        }
    };
    let (clients, took): (Vec<_>, Vec<_>) = done.into_iter().unzip();
    Ok((clients, took.concat(), memory))
}

pub(crate) fn quantiles(took: &[Duration]) -> [Duration; 4] {
    let mut took = took.to_vec();
    took.sort_unstable();
    QUANTILES.map(|(_, part)| {
        let at = (took.len() * part).div_ceil(1000).saturating_sub(1);
        took.get(at).copied().unwrap_or_default()
    })
}

/// All turns of a kind together, and the least and the most of a single one.
fn summary(name: &str, turns: Vec<Vec<Duration>>) {
    let single: Vec<_> = turns.iter().map(|took| quantiles(took)).collect();
    print!("{name}: ");
    for (at, ((quantile, _), all)) in QUANTILES.iter().zip(quantiles(&turns.concat())).enumerate() {
        let of_one = || single.iter().filter_map(|one| one.get(at)).copied();
        let (least, most) =
            (of_one().min().unwrap_or_default(), of_one().max().unwrap_or_default());
        print!(" {quantile} {:.3} ({:.3} to {:.3})", ms(all), ms(least), ms(most));
    }
    println!();
}

pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
