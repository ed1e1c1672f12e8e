//! Pure: containerd's event envelopes as container events.

use containerd_client::events;
use containerd_client::types::Envelope;
use jiff::Timestamp;
use prost::Message;

use crate::convert::Malformed;
use crate::types::{ContainerEvent, ContainerEventKind};

/// Topics worth hearing.
pub(super) const TOPICS: [&str; 5] =
    ["/containers/create", "/tasks/start", "/tasks/exit", "/tasks/oom", "/containers/delete"];

/// An envelope as an event; `None` when it says nothing about a container's
/// own process, such as the end of an exec session.
pub(crate) fn envelope(envelope: &Envelope) -> Result<Option<ContainerEvent>, Malformed> {
    let payload = envelope.event.as_ref().map(|any| any.value.as_slice()).unwrap_or_default();
    let (id, kind) = match envelope.topic.as_str() {
        "/containers/create" => (parse::<events::ContainerCreate>(payload)?.id, ContainerEventKind::Created),
        "/containers/delete" => (parse::<events::ContainerDelete>(payload)?.id, ContainerEventKind::Deleted),
        "/tasks/start" => (parse::<events::TaskStart>(payload)?.container_id, ContainerEventKind::Started),
        "/tasks/oom" => (parse::<events::TaskOom>(payload)?.container_id, ContainerEventKind::Oom),
        "/tasks/exit" => {
            let exit = parse::<events::TaskExit>(payload)?;
            // An exec's process has an id of its own.
            if exit.id != exit.container_id {
                return Ok(None);
            }
            (exit.container_id, ContainerEventKind::Stopped)
        }
        _ => return Ok(None),
    };
    if id.is_empty() {
        return Err(Malformed(format!("event {} names no container", envelope.topic)));
    }
    Ok(Some(ContainerEvent { id, kind, sandbox: None, at: time(envelope) }))
}

fn parse<M: Message + Default>(payload: &[u8]) -> Result<M, Malformed> {
    M::decode(payload).map_err(|e| Malformed(e.to_string()))
}

fn time(envelope: &Envelope) -> Option<Timestamp> {
    let at = envelope.timestamp.as_ref()?;
    Timestamp::new(at.seconds, at.nanos).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn make(topic: &str, value: Vec<u8>) -> Envelope {
        Envelope {
            timestamp: Some(prost_types::Timestamp { seconds: 5, nanos: 6 }),
            namespace: "k8s.io".to_owned(),
            topic: topic.to_owned(),
            event: Some(prost_types::Any { type_url: "ignored".to_owned(), value }),
        }
    }

    fn exit(id: &str) -> Vec<u8> {
        let event = events::TaskExit { container_id: "c1".into(), id: id.into(), pid: 7, ..Default::default() };
        event.encode_to_vec()
    }

    #[test]
    fn every_topic_becomes_its_kind() {
        let by_container = events::TaskStart { container_id: "c1".into(), pid: 7 }.encode_to_vec();
        let by_id = events::ContainerDelete { id: "c1".into() }.encode_to_vec();
        let table = [
            ("/containers/create", by_id.clone(), Some(ContainerEventKind::Created)),
            ("/containers/delete", by_id, Some(ContainerEventKind::Deleted)),
            ("/tasks/start", by_container.clone(), Some(ContainerEventKind::Started)),
            ("/tasks/oom", by_container, Some(ContainerEventKind::Oom)),
            ("/tasks/exit", exit("c1"), Some(ContainerEventKind::Stopped)),
            ("/tasks/exit", exit("exec-9"), None),
            ("/images/create", vec![], None),
        ];
        for (topic, payload, kind) in table {
            let got = envelope(&make(topic, payload)).unwrap();
            assert_eq!(got.as_ref().map(|e| e.kind), kind, "{topic}");
            if let Some(event) = got {
                assert_eq!(event.id, "c1");
                assert_eq!(event.at, Some(Timestamp::new(5, 6).unwrap()));
            }
        }
    }

    #[test]
    fn an_event_without_a_container_is_malformed() {
        for topic in TOPICS {
            envelope(&make(topic, vec![])).unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(topic in 0..TOPICS.len(), payload in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = envelope(&make(TOPICS[topic], payload));
        }
    }
}
