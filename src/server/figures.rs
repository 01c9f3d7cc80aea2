//! What a server tells of itself to Prometheus and to probes.

use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::dispatch::Hub;
use crate::dispatch::kafka::Bus;
use crate::handler::WorkerContext;
use crate::handler::breaker::Circuit;
use crate::server::core::Core;
use crate::telemetry::{Exposition, Telling};

/// The figures of one server.
pub struct Figures {
    pub core: Arc<Core>,
    pub hub: Arc<Hub>,
    pub connections: Box<dyn Fn() -> usize + Send + Sync>,
    pub bus: Weak<Bus>,
    /// The context of the server's own worker, if it has one.
    pub local: Option<Arc<WorkerContext>>,
}

impl Telling for Figures {
    fn figures(&self, page: &mut Exposition) {
        let ready = f64::from(u8::from(self.core.ready().is_ok()));
        page.gauge("tol_scheduler_ready", "1 while this scheduler takes runs in.", ready);
        page.gauge("tol_runs_driven", "Runs that this scheduler drives.", self.core.hall.driven().len() as f64);
        let refused = self.core.journal.refused();
        page.counter("tol_journal_fenced_total", "Writes refused because another process has the run.", refused);
        if let Some(division) = &self.core.division {
            let held = (0..division.partitions.count()).filter(|one| division.partitions.is_sure(*one)).count() as f64;
            page.gauge("tol_partitions_held", "Partitions that this scheduler holds.", held);
        }
        page.gauge("grpc_connections_active", "Connections to the gateway.", (self.connections)() as f64);
        self.hand_outs(page);
        self.circuits(page);
        if let Some(bus) = self.bus.upgrade() {
            let counters = bus.counters();
            page.counter("tol_bus_sent_total", "Messages written to Kafka.", counters.sent);
            page.counter("tol_bus_received_total", "Messages read from Kafka.", counters.received);
            page.counter("tol_bus_unsent_total", "Messages that Kafka did not take.", counters.unsent);
            page.counter("tol_bus_undecodable_total", "Messages that could not be read.", counters.undecodable);
            page.gauge("tol_bus_lag", "Messages on Kafka that are still to be read.", bus.lag() as f64);
        }
    }

    fn ready(&self) -> Result<(), String> {
        self.core.ready()
    }
}

impl Figures {
    fn hand_outs(&self, page: &mut Exposition) {
        page.gauge("tol_hand_outs", "Hand-outs that have not been recorded.", self.hub.out() as f64);
        page.gauge("tol_hand_outs_leased", "Hand-outs that a worker has.", self.hub.in_work() as f64);
        let counters = self.hub.counters();
        for (name, help, value) in [
            ("tol_hand_outs_total", "Hand-outs so far.", counters.handed_out),
            ("tol_reports_total", "Outcomes that were taken in.", counters.reported),
            ("tol_leases_lost_total", "Hand-outs whose worker was not heard of for the lease time.", counters.lost),
            ("tol_hand_outs_resent_total", "Hand-outs that were sent again over the bus.", counters.resent),
            ("tol_reports_stale_total", "Outcomes under a token that was no longer current.", counters.stale),
            ("tol_reports_unknown_total", "Outcomes of runs that this scheduler does not have.", counters.unknown),
            (
                "tol_hand_outs_reclaimed_total",
                "Hand-outs of an earlier scheduler found with workers.",
                counters.reclaimed,
            ),
        ] {
            page.counter(name, help, value);
        }
        let unserved = self.hub.unserved();
        let labels: Vec<[(&str, &str); 1]> = unserved.keys().map(|queue| [("queue", &**queue)]).collect();
        let samples: Vec<(&[(&str, &str)], f64)> =
            labels.iter().zip(unserved.values()).map(|(labels, count)| (&labels[..], *count as f64)).collect();
        page.figure("tol_queue_unserved", "gauge", "Tasks that wait for a queue that no worker serves.", &samples);
        let workers = self.hub.workers();
        let labels: Vec<[(&str, &str); 1]> = workers.iter().map(|(name, ..)| [("worker", &**name)]).collect();
        let slots: Vec<f64> = workers.iter().map(|(_, slots, _)| f64::from(*slots)).collect();
        let used: Vec<f64> = workers.iter().map(|(_, _, used)| *used as f64).collect();
        for (name, help, values) in [
            ("tol_worker_slots", "Tasks that a worker does at once.", slots),
            ("tol_worker_slots_used", "Tasks that a worker has.", used),
        ] {
            let samples: Vec<(&[(&str, &str)], f64)> =
                labels.iter().zip(values).map(|(labels, value)| (&labels[..], value)).collect();
            page.figure(name, "gauge", help, &samples);
        }
    }

    fn circuits(&self, page: &mut Exposition) {
        let Some(context) = &self.local else { return };
        let states = context.breakers.states(Instant::now());
        let value = |circuit: &Circuit| match circuit {
            Circuit::Closed => 0.0,
            Circuit::HalfOpen => 0.5,
            Circuit::Open => 1.0,
        };
        let labels: Vec<[(&str, &str); 1]> = states.iter().map(|(target, _)| [("target", target.as_str())]).collect();
        let samples: Vec<(&[(&str, &str)], f64)> =
            labels.iter().zip(&states).map(|(labels, (_, circuit))| (&labels[..], value(circuit))).collect();
        page.figure("tol_circuit_open", "gauge", "1 while a target is left alone, 0.5 while it is tried.", &samples);
    }
}
