//! The metrics for whatever recorder the host has for the `metrics` crate.

use std::collections::HashMap;
use std::fmt;

use metrics::{
    Label, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use super::Metrics;
use super::families::{Labels, Samples};

/// Feeds the recorder of the [`metrics`](::metrics) crate from snapshots, under the names of
/// [`Metrics::write_prometheus`].
///
/// Distributions get each new value as the upper bound of its bucket (what is above all bounds, as the
/// last one).
///
/// ```
/// use xmpp_session::server::Feed;
///
/// # fn every_ten_seconds<C: xmpp_session::connection::SharedConnection>(server: &xmpp_session::server::Server<C>, feed: &mut Feed) {
/// feed.record(&server.metrics());
/// # }
/// ```
#[derive(Default)]
pub struct Feed {
    is_described: bool,
    /// What histograms have been told, by name and labels, bucket by bucket.
    told: HashMap<(&'static str, Labels), Vec<u64>>,
}

impl Feed {
    /// One that has told nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells the recorder what is new. One feed for one server: it remembers what it has told.
    pub fn record(&mut self, metrics: &Metrics) {
        let describe = !std::mem::replace(&mut self.is_described, true);
        for family in metrics.families() {
            let (name, help) = (family.name, family.help);
            match family.samples {
                Samples::Counter(samples) => {
                    let name = format!("{name}_total");
                    if describe {
                        describe_counter!(name.clone(), help);
                    }
                    for (of, value) in samples {
                        counter!(name.clone(), labels(&of)).absolute(value);
                    }
                }
                Samples::Gauge(samples) => {
                    if describe {
                        describe_gauge!(name, help);
                    }
                    for (of, value) in samples {
                        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float there")]
                        gauge!(name, labels(&of)).set(value as f64);
                    }
                }
                Samples::Histogram(samples) => {
                    if describe {
                        describe_histogram!(name, help);
                    }
                    for (of, values) in samples {
                        let recorder = histogram!(name, labels(&of));
                        let told = self.told.entry((name, of)).or_default();
                        told.resize(values.buckets().count(), 0);
                        let (mut below, mut last) = (0, 0.0);
                        for ((bound, all), told) in values.buckets().zip(told) {
                            last = if bound.is_finite() { bound } else { last };
                            let count = all.saturating_sub(below);
                            below = all;
                            let new = count.saturating_sub(std::mem::replace(told, count));
                            if let Some(new) = usize::try_from(new).ok().filter(|new| *new > 0) {
                                recorder.record_many(last, new);
                            }
                        }
                    }
                }
            }
        }
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}

fn labels(of: &Labels) -> Vec<Label> {
    of.iter().map(|(name, value)| Label::from_static_parts(name, value)).collect()
}
