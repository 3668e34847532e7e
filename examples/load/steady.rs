//! How long messages take that are written at a steady rate.

use std::sync::Arc;

use crate::client::Client;
use crate::cost::Cost;
use crate::slow::{QUANTILES, ms, quantiles};
use crate::{Load, Result, all};

pub(crate) async fn run(load: &Arc<Load>, clients: Vec<Client>) -> Result<()> {
    let each = load.rate * load.steady / load.users;
    let cost = Cost::begin(&load.pids)?;
    let chat = |client: Client| {
        let load = Arc::clone(load);
        tokio::spawn(async move { client.chat(&load, 0..each).await })
    };
    let (clients, took): (Vec<_>, Vec<_>) =
        all(clients.into_iter().map(chat)).await?.into_iter().unzip();
    cost.tell(each * load.users, "message")?;
    all(clients.into_iter().map(|client| tokio::spawn(client.leave()))).await?;
    print!("{} messages, each delivered once, in order and unaltered, ms:", each * load.users);
    for ((name, _), took) in QUANTILES.iter().zip(quantiles(&took.concat())) {
        print!(" {name} {:.3}", ms(took));
    }
    println!();
    Ok(())
}
