//! What runs beside the API server in its process, and answers under its paths: checks of `/healthz`, figures of
//! `/metrics`. They do not count for `/livez` and `/readyz`: those are about the API itself.

use std::fmt::Debug;
use std::sync::{Arc, PoisonError, RwLock};

/// A part of the process that can be asked how it is.
pub trait Component: Debug + Send + Sync {
    /// Names of checks, each with what is wrong if it fails.
    fn checks(&self) -> Vec<(String, Option<String>)>;
    /// Appends figures in the text format of Prometheus, under names that no other component has.
    fn write_metrics(&self, out: &mut String);
}

/// The components of a process.
#[derive(Debug, Default)]
pub struct Components(RwLock<Vec<Arc<dyn Component>>>);

impl Components {
    /// Adds one.
    pub fn add(&self, component: Arc<dyn Component>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(component);
    }

    fn all(&self) -> Vec<Arc<dyn Component>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The checks of all of them.
    pub fn checks(&self) -> Vec<(String, Option<String>)> {
        self.all().iter().flat_map(|component| component.checks()).collect()
    }

    /// `own`, a whole document of figures, with those of all of them.
    pub fn with_metrics(&self, own: String) -> String {
        const END: &str = "# EOF\n";
        let mut text = own.strip_suffix(END).map(str::to_owned).unwrap_or(own);
        for component in self.all() {
            component.write_metrics(&mut text);
        }
        text.push_str(END);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Stuck;

    impl Component for Stuck {
        fn checks(&self) -> Vec<(String, Option<String>)> {
            vec![("workqueue/deployment".into(), Some("no progress".into()))]
        }
        fn write_metrics(&self, out: &mut String) {
            out.push_str("workqueue_depth{name=\"deployment\"} 3\n");
        }
    }

    #[test]
    fn figures_of_components_stand_before_the_end() {
        let components = Components::default();
        assert_eq!(components.with_metrics("a 1\n# EOF\n".into()), "a 1\n# EOF\n");
        components.add(Arc::new(Stuck));
        let text = components.with_metrics("a 1\n# EOF\n".into());
        assert_eq!(text, "a 1\nworkqueue_depth{name=\"deployment\"} 3\n# EOF\n");
        assert_eq!(components.checks(), Stuck.checks());
    }
}
