//! Who may be in the server without being authenticated.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::builder::Limits;

/// Who may be in the server without being authenticated (LIMIT-25).
pub(super) struct Admissions {
    most: usize,
    most_per_source: usize,
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    all: usize,
    sources: HashMap<String, usize>,
}

impl Admissions {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            most: limits.unauthenticated,
            most_per_source: limits.unauthenticated_per_source,
            inside: Mutex::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.inside.lock().all
    }

    pub(super) fn admit(self: &Arc<Self>, source: Option<String>) -> Option<Admission> {
        let mut inside = self.inside.lock();
        let here = source.as_ref().and_then(|source| inside.sources.get(source)).copied();
        let is_full = source.is_some() && here.unwrap_or_default() >= self.most_per_source;
        if inside.all >= self.most || is_full {
            return None;
        }
        if let Some(source) = &source {
            *inside.sources.entry(source.clone()).or_default() += 1;
        }
        inside.all += 1;
        Some(Admission { admissions: Arc::clone(self), source })
    }
}

/// One place among the unauthenticated, given up on drop.
pub(super) struct Admission {
    admissions: Arc<Admissions>,
    source: Option<String>,
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut inside = self.admissions.inside.lock();
        inside.all -= 1;
        let Some(source) = &self.source else { return };
        if let Some(here) = inside.sources.get_mut(source) {
            *here -= 1;
            if *here == 0 {
                inside.sources.remove(source);
            }
        }
    }
}
