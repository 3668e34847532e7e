//! What processes cost while something happens: user and system time, of all their threads.

use crate::Result;

pub(crate) struct Cost(Vec<(u32, u64)>);

/// Of the clock in `/proc/PID/stat`, in a second.
const TICKS: f64 = 100.0;

impl Cost {
    pub(crate) fn begin(pids: &[u32]) -> Result<Self> {
        pids.iter().map(|pid| Ok((*pid, ticks(*pid)?))).collect::<Result<_>>().map(Self)
    }

    /// Prints what each has cost since, in all and for each of so many.
    pub(crate) fn tell(&self, count: usize, what: &str) -> Result<()> {
        for (pid, before) in &self.0 {
            let used = (ticks(*pid)? - before) as f64 / TICKS;
            let each = used * 1e6 / count as f64;
            println!("process {pid}: {used:.2} s of CPU, {each:.2} \u{b5}s for a {what}");
        }
        Ok(())
    }
}

fn ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').ok_or("no figures of a process")?;
    // `utime` and `stime` are the 14th and 15th of all.
    let used = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    Ok(used.sum::<std::result::Result<_, _>>()?)
}
