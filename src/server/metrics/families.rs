//! The names of the metrics, for every format in which they are told (METRIC-1).

use super::{Histogram, Metrics};
use crate::sasl::Mechanism;
#[cfg(feature = "cluster")]
use crate::server::NodeMetrics;

/// A metric with all its samples.
pub(super) struct Family<'a> {
    /// Without the `_total` of counters.
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) samples: Samples<'a>,
}

/// The values, by their labels.
pub(super) enum Samples<'a> {
    Counter(Vec<(Labels, u64)>),
    Gauge(Vec<(Labels, u64)>),
    Histogram(Vec<(Labels, &'a Histogram)>),
}

/// Names and values, none of which has to be escaped.
pub(super) type Labels = Vec<(&'static str, &'static str)>;

/// The kinds of faults, so that each is there before it occurs.
const FAULTS: &[&str] = &[
    "login",
    "store",
    "panic",
    "tls",
    "limit",
    "stream",
    #[cfg(feature = "cluster")]
    "fenced",
    #[cfg(feature = "cluster")]
    "engine",
    #[cfg(feature = "cluster")]
    "arrival",
];

impl Metrics {
    pub(super) fn families(&self) -> Vec<Family<'_>> {
        let counter =
            |name, help, samples| Family { name, help, samples: Samples::Counter(samples) };
        let gauge = |name, help, samples| Family { name, help, samples: Samples::Gauge(samples) };
        let histogram =
            |name, help, samples| Family { name, help, samples: Samples::Histogram(samples) };
        let kinds = |kinds: &super::ByKind| {
            let super::ByKind { messages, presences, iqs } = *kinds;
            vec![
                (vec![("kind", "message")], messages),
                (vec![("kind", "presence")], presences),
                (vec![("kind", "iq")], iqs),
            ]
        };
        let of = |mechanism: &Option<Mechanism>| mechanism.map_or("unknown", Mechanism::as_str);
        let live = self.sessions.sessions.saturating_sub(self.sessions.hibernating);
        let told = |kind: &str| self.faults.iter().find(|(name, _)| *name == kind);
        #[cfg_attr(not(feature = "cluster"), expect(unused_mut, reason = "others come behind"))]
        let mut families = vec![
            counter("xmpp_transports_accepted", "Transports accepted.", one(self.accepted)),
            gauge(
                "xmpp_transports_unauthenticated",
                "Transports that are not authenticated.",
                one(self.unauthenticated as u64),
            ),
            counter(
                "xmpp_logins",
                "Logins that succeeded.",
                named(&self.logins, |mechanism| vec![("mechanism", mechanism.as_str())]),
            ),
            counter(
                "xmpp_login_failures",
                "Logins that failed.",
                named(&self.login_failures, |(mechanism, error)| {
                    vec![("mechanism", of(mechanism)), ("reason", error.as_str())]
                }),
            ),
            gauge(
                "xmpp_sessions",
                "Bound sessions, by whether they have a transport.",
                vec![
                    (vec![("state", "live")], live as u64),
                    (vec![("state", "hibernating")], self.sessions.hibernating as u64),
                ],
            ),
            counter("xmpp_session_binds", "Sessions that were bound.", one(self.binds)),
            counter(
                "xmpp_session_resumptions",
                "Sessions that got another transport.",
                one(self.resumptions),
            ),
            counter(
                "xmpp_session_ends",
                "Sessions that ended.",
                named(&self.ends, |reason| vec![("reason", *reason)]),
            ),
            counter(
                "xmpp_stanzas_received",
                "Stanzas received from clients.",
                kinds(&self.received),
            ),
            counter(
                "xmpp_stanzas_delivered",
                "Stanzas given to sessions, but for copies of broadcasts.",
                kinds(&self.delivered),
            ),
            counter(
                "xmpp_received_bytes",
                "Bytes received from clients.",
                one(self.bytes_received),
            ),
            counter(
                "xmpp_delivered_bytes",
                "Bytes of the stanzas given to sessions.",
                one(self.bytes_delivered),
            ),
            counter(
                "xmpp_offline_messages_stored",
                "Messages put into the offline store.",
                one(self.offline_stored),
            ),
            counter(
                "xmpp_offline_messages_retrieved",
                "Messages that sessions got from the offline store.",
                one(self.offline_retrieved),
            ),
            gauge(
                "xmpp_retained_bytes",
                "Bytes that wait to be acknowledged.",
                one(self.sessions.retained_bytes as u64),
            ),
            counter(
                "xmpp_stanza_errors",
                "Stanza errors sent.",
                named(&self.stanza_errors, |condition| vec![("condition", condition.as_str())]),
            ),
            counter(
                "xmpp_stream_errors",
                "Streams closed with an error.",
                named(&self.stream_errors, |condition| vec![("condition", condition.as_str())]),
            ),
            counter(
                "xmpp_limits_hit",
                "Limits that were hit.",
                named(&self.limits, |limit| vec![("limit", limit.as_str()), ("rule", limit.id())]),
            ),
            counter(
                "xmpp_faults",
                "Faults, told to the host or not.",
                FAULTS
                    .iter()
                    .map(|kind| (vec![("kind", *kind)], told(kind).map_or(0, |(_, n)| *n)))
                    .collect(),
            ),
            counter(
                "xmpp_store_entries_unread",
                "Entries of the stores that could not be read.",
                one(self.unread),
            ),
            gauge(
                "xmpp_chains_busy",
                "Chains with work: changes of accounts, and messages under review.",
                one(self.jobs as u64),
            ),
            histogram(
                "xmpp_login_step_seconds",
                "How long logins take, step by step.",
                self.login_steps
                    .iter()
                    .map(|(step, times)| (vec![("step", step.as_str())], times))
                    .collect(),
            ),
            histogram(
                "xmpp_store_call_seconds",
                "How long stores take, by call.",
                self.store_calls
                    .iter()
                    .map(|(call, times)| (vec![("call", call.as_str())], times))
                    .collect(),
            ),
            histogram(
                "xmpp_delivery_seconds",
                "From a message of a client to its recipient's transport, of one in 64.",
                vec![(Labels::new(), &self.delivery)],
            ),
            histogram(
                "xmpp_session_queue_bytes",
                "Bytes that wait for each session, at each look.",
                vec![(Labels::new(), &self.queue_bytes)],
            ),
            histogram(
                "xmpp_unacknowledged_seconds",
                "Age of the oldest unacknowledged stanza of each session, at each look.",
                vec![(Labels::new(), &self.unacknowledged)],
            ),
        ];
        #[cfg(feature = "cluster")]
        families.extend(self.node.iter().flat_map(node));
        families
    }
}

/// Those of a server that is one of several nodes.
#[cfg(feature = "cluster")]
fn node<'a>(node: &NodeMetrics) -> Vec<Family<'a>> {
    let counter = |name, help, value| Family { name, help, samples: Samples::Counter(one(value)) };
    let gauge = |name, help, value| Family { name, help, samples: Samples::Gauge(one(value)) };
    vec![
        gauge("xmpp_node_members", "Nodes of the view that this one knows.", node.members as u64),
        gauge("xmpp_node_view_term", "The term of that view.", node.view.term),
        gauge("xmpp_node_view_number", "Its number in its term.", node.view.number),
        gauge("xmpp_node_slots", "Slots of accounts that live here.", node.slots as u64),
        gauge("xmpp_node_slots_moving", "Slots on their way from here.", node.moving as u64),
        counter("xmpp_node_slots_moved", "Slots that have come, or gone, by a move.", node.moved),
        counter("xmpp_node_slots_lost", "Slots that have begun empty here.", node.lost),
        gauge(
            "xmpp_node_link_bytes",
            "Bytes that other nodes have not answered.",
            node.link_bytes as u64,
        ),
        gauge(
            "xmpp_node_link_age_seconds",
            "For how long the slowest node has not answered, in whole seconds.",
            node.link_age.as_secs(),
        ),
        gauge(
            "xmpp_node_held_bytes",
            "Bytes that wait until a slot has come to its new home.",
            node.held_bytes as u64,
        ),
        gauge(
            "xmpp_node_known_sessions",
            "Sessions at other nodes that clients here know of, once for each of their accounts.",
            node.known as u64,
        ),
        counter(
            "xmpp_node_engine_failures",
            "Calls of the engine that failed, or had no answer.",
            node.engine_failures,
        ),
        gauge("xmpp_node_fenced", "1 if it may never act again.", node.fenced.into()),
    ]
}

fn one(value: u64) -> Vec<(Labels, u64)> {
    vec![(Labels::new(), value)]
}

fn named<K>(counts: &[(K, u64)], labels: impl Fn(&K) -> Labels) -> Vec<(Labels, u64)> {
    counts.iter().map(|(key, count)| (labels(key), *count)).collect()
}
