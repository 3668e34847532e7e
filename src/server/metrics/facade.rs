//! The metrics for whatever recorder the host has for the `metrics` crate (METRIC-5).

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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use metrics::{
        Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata,
        Recorder, SharedString, Unit,
    };

    use super::*;
    use crate::connection;
    use crate::environment::Virtual;
    use crate::server::Server;
    use crate::store::Stores;

    /// What was recorded: of counters and gauges the last value, of histograms all.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<BTreeMap<String, Vec<f64>>>>);

    struct One(Log, String);

    impl One {
        fn set(&self, value: f64) {
            self.0.0.lock().unwrap().insert(self.1.clone(), vec![value]);
        }
    }

    impl CounterFn for One {
        fn increment(&self, _: u64) {}

        fn absolute(&self, value: u64) {
            self.set(value as f64);
        }
    }

    impl GaugeFn for One {
        fn increment(&self, _: f64) {}

        fn decrement(&self, _: f64) {}

        fn set(&self, value: f64) {
            Self::set(self, value);
        }
    }

    impl HistogramFn for One {
        fn record(&self, value: f64) {
            self.0.0.lock().unwrap().entry(self.1.clone()).or_default().push(value);
        }
    }

    impl Log {
        fn one(&self, key: &Key) -> Arc<One> {
            let labels = key.labels().map(|label| format!(" {}={}", label.key(), label.value()));
            let name = key.name().to_owned() + &labels.collect::<String>();
            Arc::new(One(self.clone(), name))
        }

        fn get(&self, name: &str) -> Vec<f64> {
            self.0.lock().unwrap().get(name).cloned().unwrap_or_default()
        }
    }

    impl Recorder for Log {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            self.one(key).into()
        }

        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            self.one(key).into()
        }

        fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
            self.one(key).into()
        }
    }

    #[test]
    fn metric_5_a_recorder_gets_the_same() {
        let server: Server<connection::Recorder> =
            Server::builder(Arc::new(Virtual::new(1)), Stores::memory()).build();
        let (log, mut feed) = (Log::default(), Feed::new());
        let counters = &server.0.metrics;
        let feed = &mut feed;
        ::metrics::with_local_recorder(&log, || {
            counters.bound();
            counters.rare.delivered_in(Duration::from_millis(2));
            counters.rare.delivered_in(Duration::from_secs(3600));
            feed.record(&server.metrics());
            counters.bound();
            counters.rare.delivered_in(Duration::from_millis(2));
            feed.record(&server.metrics());
            feed.record(&server.metrics());
        });
        assert_eq!(log.get("xmpp_session_binds_total"), [2.0]);
        assert_eq!(log.get("xmpp_sessions state=live"), [0.0]);
        // Each value once, as the bound of its bucket.
        assert_eq!(log.get("xmpp_delivery_seconds"), [0.0025, 60.0, 0.0025]);
    }
}
