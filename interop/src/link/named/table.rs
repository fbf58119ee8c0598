//! The named links for readers.

use std::time::Duration;

use super::ALL;
use crate::link::conditions::{Conditions, Jitter, Loss, Queue};
use crate::link::course::Course;
use crate::link::profile::{Direction, Profile};

/// The links as a table in Markdown.
pub fn table() -> String {
    let mut text = String::from(
        "| link | Mbit/s up / down | round trip, ms | jitter each way | loss each way | queue up / down | what it is |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for link in ALL {
        let profile = link.profile();
        let [up, down] = Direction::BOTH.map(|direction| profile.course(direction).first());
        text += &format!(
            "| {} | {} | {} | {} | {} | {} | {} |\n",
            link.name,
            both(Direction::BOTH.map(|direction| rates(profile.course(direction)))),
            round_trips(&profile),
            both([up, down].map(|conditions| jitter(conditions.jitter))),
            both([up, down].map(|conditions| losses(&conditions))),
            both([up, down].map(|conditions| queue(conditions.queue))),
            link.about,
        );
    }
    text
}

fn both([up, down]: [String; 2]) -> String {
    if up == down { up } else { format!("{up} / {down}") }
}

fn range(values: impl Iterator<Item = f64>) -> String {
    let (least, most) = values.fold((f64::MAX, f64::MIN), |(least, most), value| (least.min(value), most.max(value)));
    if least == most { format!("{least}") } else { format!("{least}..{most}") }
}

fn rates(course: &Course) -> String {
    range(course.all().filter_map(|conditions| conditions.rate).map(|rate| (rate / 1000) as f64 / 1e3))
}

fn round_trips(profile: &Profile) -> String {
    range(profile.up.all().zip(profile.down.all()).map(|(up, down)| milliseconds(up.delay + down.delay)))
}

fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}

fn jitter(jitter: Jitter) -> String {
    match jitter {
        Jitter::None => "-".to_owned(),
        Jitter::InOrder(spread) => format!("±{} ms", milliseconds(spread)),
        Jitter::Reordering(spread) => format!("±{} ms, reordering", milliseconds(spread)),
    }
}

fn losses(conditions: &Conditions) -> String {
    let loss = |loss: Loss, place: &str| match loss {
        Loss::None => None,
        Loss::Random(part) => Some(format!("{:.3} % {place}", part * 100.0)),
        Loss::Bursts { leave, .. } => {
            Some(format!("{:.3} % {place}, in bursts of {:.0}", loss.mean() * 100.0, 1.0 / leave))
        }
    };
    let all: Vec<_> = [loss(conditions.loss_before, "before the queue"), loss(conditions.loss_after, "on the air")]
        .into_iter()
        .flatten()
        .collect();
    if all.is_empty() { "-".to_owned() } else { all.join(", ") }
}

fn queue(queue: Queue) -> String {
    match queue {
        Queue::Bytes(bytes) => format!("{} KB", bytes / 1000),
        Queue::Time(time) => format!("{} ms", milliseconds(time)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_this_table() {
        let document = include_str!("../../../../docs/links.md");
        assert!(document.contains(&table()), "docs/links.md must have this table:\n{}", table());
    }
}
