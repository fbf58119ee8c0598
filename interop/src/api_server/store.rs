//! Objects, their versions, and what requests do to them.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    Fault,
    asked::Asked,
    reviews::{User, review},
    watch::{WatchBody, Watcher},
};

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) body: Value,
}

impl Answer {
    fn ok(body: Value) -> Self {
        Self { code: 200, body }
    }

    pub(super) fn status(code: u16, reason: &str, message: &str) -> Self {
        let body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "code": code,
        });
        Self { code, body }
    }
}

type Key = (String, String, String);

/// What there is.
#[derive(Debug, Default)]
pub(super) struct Store {
    version: u64,
    objects: BTreeMap<Key, Value>,
    /// Every change: its version, the resource, the event.
    changes: Vec<(u64, String, Value)>,
    watchers: Vec<Watcher>,
    faults: HashMap<(&'static str, &'static str), Fault>,
    pub(super) fail_all: Option<Fault>,
    pub(super) asked: Vec<Asked>,
    /// Users by their tokens.
    pub(super) users: HashMap<String, User>,
}

impl Store {
    pub(super) fn fail(&mut self, verb: &'static str, resource: &'static str, fault: Option<Fault>) {
        match fault {
            Some(fault) => self.faults.insert((verb, resource), fault),
            None => self.faults.remove(&(verb, resource)),
        };
    }

    /// Notes a request. What is to go wrong with it.
    pub(super) fn ask(&mut self, asked: &Asked) -> Option<Fault> {
        self.asked.push(asked.clone());
        let concerned = |(verb, resource): &&(&str, &str)| *verb == asked.verb && *resource == asked.resource;
        let fault = self.faults.keys().find(concerned).and_then(|key| self.faults.get(key));
        fault.or(self.fail_all.as_ref()).cloned()
    }

    pub(super) fn objects(&self, resource: &str) -> Vec<Value> {
        self.objects.iter().filter(|(key, _)| key.0 == resource).map(|(_, object)| object.clone()).collect()
    }

    pub(super) fn put(&mut self, resource: &str, mut object: Value) {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let key = (resource.to_owned(), text("namespace"), text("name"));
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let kind = match self.objects.get(&key) {
            Some(before) => {
                object["metadata"]["uid"] = before["metadata"]["uid"].clone();
                "MODIFIED"
            }
            None => {
                object["metadata"]["uid"] = format!("uid-{}", self.version).into();
                "ADDED"
            }
        };
        self.objects.insert(key, object.clone());
        self.tell(resource, json!({"type": kind, "object": object}));
    }

    pub(super) fn remove(&mut self, resource: &str, namespace: &str, name: &str) {
        let key = (resource.to_owned(), namespace.to_owned(), name.to_owned());
        let Some(mut object) = self.objects.remove(&key) else { return };
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.tell(resource, json!({"type": "DELETED", "object": object}));
    }

    fn tell(&mut self, resource: &str, event: Value) {
        self.watchers.retain(|watcher| watcher.tell(resource, &event));
        self.changes.push((self.version, resource.to_owned(), event));
    }

    /// Changes from the version that is asked for, until the time that is asked for has passed.
    pub(super) fn watch(&mut self, asked: &Asked) -> WatchBody {
        let number = |name: &str| asked.query.get(name).and_then(|text| text.parse::<u64>().ok());
        let since = number("resourceVersion").unwrap_or(0);
        let limit = Duration::from_secs(number("timeoutSeconds").unwrap_or(300));
        let (watcher, body) = Watcher::new(asked, limit);
        for (_, resource, event) in self.changes.iter().filter(|(version, ..)| *version > since) {
            watcher.tell(resource, event);
        }
        self.watchers.push(watcher);
        body
    }

    pub(super) fn answer(&mut self, asked: &Asked) -> Answer {
        match asked.verb {
            "list" => self.list(asked),
            "create" if asked.resource == "tokenreviews" => review(asked, &self.users),
            "create" => self.create(asked),
            verb => match self.objects.get(&key(asked)).cloned() {
                None => Answer::status(404, "NotFound", &format!("{} {:?} not found", asked.resource, asked.name)),
                Some(object) => self.on_object(verb, asked, object),
            },
        }
    }

    fn on_object(&mut self, verb: &str, asked: &Asked, object: Value) -> Answer {
        let wanted = match verb {
            "update" => &asked.body["metadata"]["resourceVersion"],
            _ => &asked.body["preconditions"]["resourceVersion"],
        };
        let conflicts = wanted.is_string() && *wanted != object["metadata"]["resourceVersion"];
        match verb {
            "get" => Answer::ok(object),
            _ if conflicts => Answer::status(409, "Conflict", "the object has been modified"),
            "update" => {
                self.put(&asked.resource, asked.body.clone());
                Answer::ok(self.objects[&key(asked)].clone())
            }
            "delete" => {
                self.remove(&asked.resource, &asked.namespace, &asked.name);
                Answer::ok(json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}))
            }
            other => Answer::status(405, "MethodNotAllowed", other),
        }
    }

    fn list(&self, asked: &Asked) -> Answer {
        let selector = asked.query.get("labelSelector").map(String::as_str).unwrap_or_default();
        let of = |(key, object): &(&Key, &Value)| {
            key.0 == asked.resource
                && (asked.namespace.is_empty() || key.1 == asked.namespace)
                && selects(selector, object)
        };
        let items: Vec<_> = self.objects.iter().filter(of).map(|(_, object)| object.clone()).collect();
        let version = self.version.to_string();
        Answer::ok(
            json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items}),
        )
    }

    fn create(&mut self, asked: &Asked) -> Answer {
        let name = asked.body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let asked = Asked { name, ..asked.clone() };
        if self.objects.contains_key(&key(&asked)) {
            return Answer::status(409, "AlreadyExists", "it is there already");
        }
        self.put(&asked.resource, asked.body.clone());
        Answer { code: 201, body: self.objects[&key(&asked)].clone() }
    }
}

fn key(asked: &Asked) -> Key {
    (asked.resource.clone(), asked.namespace.clone(), asked.name.clone())
}

/// Whether an object has the labels of a selector of equalities.
pub(super) fn selects(selector: &str, object: &Value) -> bool {
    selector.split(',').filter(|part| !part.is_empty()).all(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        object["metadata"]["labels"][name.trim()] == value.trim_start_matches('=').trim()
    })
}
