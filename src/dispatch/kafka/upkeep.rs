//! What a scheduler does on the bus from time to time: it looks whether the cluster is still the same, and says its
//! counters.

use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::{Value, json};

use crate::dispatch::hub::Hub;
use crate::dispatch::kafka::bus::Shared;
use crate::dispatch::kafka::lookout::{LOOK, Lookout};
use crate::dispatch::kafka::topics::Topic;
use crate::dispatch::kafka::wire::header;
use crate::proto;
use crate::task::DEFAULT_QUEUE;

/// How often the counters are said.
const SAY: Duration = Duration::from_secs(30);

/// Goes on until the hub ends.
pub(super) async fn keep_up(shared: Arc<Shared>, hub: Weak<Hub>) {
    let mut lookout = Lookout::default();
    let begin = tokio::time::Instant::now();
    let mut looks = tokio::time::interval_at(begin + LOOK, LOOK);
    let mut says = tokio::time::interval_at(begin + SAY, SAY);
    for each in [&mut looks, &mut says] {
        each.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    }
    loop {
        tokio::select! {
            _ = looks.tick() => {
                let mut topics = shared.topics.all([DEFAULT_QUEUE]);
                topics.extend(shared.used());
                topics.sort();
                topics.dedup();
                if lookout.look(&shared.admin, &topics).await {
                    shared.renew();
                }
            }
            _ = says.tick() => {
                let Some(hub) = hub.upgrade() else { return };
                let figures = figures(&shared, &hub);
                drop(hub);
                let event = proto::event(header(&shared.name, None), &figures);
                shared.send(&shared.topics.name(Topic::Metrics), &shared.name, &event).await;
            }
        }
        if hub.strong_count() == 0 {
            return;
        }
    }
}

fn figures(shared: &Shared, hub: &Hub) -> Value {
    let (hub_counters, bus) = (hub.counters(), shared.counters());
    json!({
        "event": "metrics",
        "handOuts": { "out": hub.out(), "inWork": hub.in_work() },
        "counters": {
            "handedOut": hub_counters.handed_out,
            "reported": hub_counters.reported,
            "lost": hub_counters.lost,
            "resent": hub_counters.resent,
            "stale": hub_counters.stale,
            "unknown": hub_counters.unknown,
            "reclaimed": hub_counters.reclaimed,
        },
        "bus": {
            "sent": bus.sent,
            "received": bus.received,
            "unsent": bus.unsent,
            "undecodable": bus.undecodable,
            "linesDropped": bus.lines_dropped,
        },
    })
}
