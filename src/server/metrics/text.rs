//! The metrics as text.

use std::fmt::{self, Write};

use super::families::{Labels, Samples};
use super::{Histogram, Metrics};

/// In which format.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    OpenMetrics,
    Prometheus,
}

impl Metrics {
    /// The content type of [`write_openmetrics`](Self::write_openmetrics) over HTTP.
    pub const OPENMETRICS: &'static str =
        "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// The content type of [`write_prometheus`](Self::write_prometheus) over HTTP.
    pub const PROMETHEUS: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// Appends all of them in the text format of
    /// [OpenMetrics 1.0](https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md)
    /// ([METRIC-2](crate::rules#metric-2)).
    pub fn write_openmetrics(&self, out: &mut String) {
        let _infallible = self.write(out, Format::OpenMetrics);
    }

    /// The same in the older text format of Prometheus, for whoever does not ask for OpenMetrics.
    pub fn write_prometheus(&self, out: &mut String) {
        let _infallible = self.write(out, Format::Prometheus);
    }

    fn write(&self, out: &mut String, format: Format) -> fmt::Result {
        for family in self.families() {
            let (name, help) = (family.name, family.help);
            let type_ = match &family.samples {
                Samples::Counter(_) => "counter",
                Samples::Gauge(_) => "gauge",
                Samples::Histogram(_) => "histogram",
            };
            // There the name of a counter is that of its samples.
            let end = match (format, type_) {
                (Format::Prometheus, "counter") => "_total",
                _ => "",
            };
            writeln!(out, "# TYPE {name}{end} {type_}")?;
            if format == Format::OpenMetrics
                && let Some(unit) = ["seconds", "bytes"].iter().find(|unit| name.ends_with(*unit))
            {
                writeln!(out, "# UNIT {name} {unit}")?;
            }
            writeln!(out, "# HELP {name}{end} {help}")?;
            match &family.samples {
                Samples::Counter(samples) => write_all(out, name, "_total", samples)?,
                Samples::Gauge(samples) => write_all(out, name, "", samples)?,
                Samples::Histogram(samples) => {
                    for (labels, histogram) in samples {
                        write_histogram(out, name, labels, histogram)?;
                    }
                }
            }
        }
        if format == Format::OpenMetrics { out.write_str("# EOF\n") } else { Ok(()) }
    }
}

fn write_all(out: &mut String, name: &str, end: &str, samples: &[(Labels, u64)]) -> fmt::Result {
    samples.iter().try_for_each(|(labels, value)| {
        write!(out, "{name}{end}")?;
        write_labels(out, labels, None)?;
        writeln!(out, " {value}")
    })
}

fn write_histogram(out: &mut String, name: &str, labels: &Labels, of: &Histogram) -> fmt::Result {
    for (bound, count) in of.buckets() {
        write!(out, "{name}_bucket")?;
        write_labels(out, labels, Some(bound))?;
        writeln!(out, " {count}")?;
    }
    for (end, value) in [("_sum", of.sum().to_string()), ("_count", of.count().to_string())] {
        write!(out, "{name}{end}")?;
        write_labels(out, labels, None)?;
        writeln!(out, " {value}")?;
    }
    Ok(())
}

fn write_labels(out: &mut String, labels: &Labels, bound: Option<f64>) -> fmt::Result {
    let mut before = '{';
    for (name, value) in labels {
        write!(out, "{before}{name}=\"{value}\"")?;
        before = ',';
    }
    match bound {
        Some(f64::INFINITY) => write!(out, "{before}le=\"+Inf\"}}"),
        // With a point, as OpenMetrics writes numbers of its own.
        Some(bound) => write!(out, "{before}le=\"{bound:?}\"}}"),
        None if labels.is_empty() => Ok(()),
        None => out.write_char('}'),
    }
}
