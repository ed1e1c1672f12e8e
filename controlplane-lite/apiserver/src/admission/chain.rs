//! The plugins in effect, in upstream's order (`AllOrderedPlugins` in `pkg/kubeapiserver/options/plugins.go`), and how
//! both phases go through them.

use super::*;

/// A plugin with the phases that it takes part in.
#[derive(Clone)]
pub struct Plugin {
    name: &'static str,
    mutating: Option<Arc<dyn Mutating>>,
    validating: Option<Arc<dyn Validating>>,
    connects: bool,
}

impl Plugin {
    /// One that mutates.
    pub fn mutating(name: &'static str, mutating: impl Mutating + 'static) -> Self {
        Self { name, mutating: Some(Arc::new(mutating)), validating: None, connects: false }
    }

    /// One that validates.
    pub fn validating(name: &'static str, validating: impl Validating + 'static) -> Self {
        Self { name, mutating: None, validating: Some(Arc::new(validating)), connects: false }
    }

    /// The same plugin, which validates, too.
    #[must_use]
    pub fn and(self, validating: impl Validating + 'static) -> Self {
        Self { validating: Some(Arc::new(validating)), ..self }
    }

    /// The same plugin, which is asked about connections, too. Others would have nothing to say of them.
    #[must_use]
    pub fn of_connections(self) -> Self {
        Self { connects: true, ..self }
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Upstream's plugins that there are, each in its place. Doors without a plugin yet: LimitRanger (both phases) after
/// NamespaceLifecycle; DefaultStorageClass and StorageObjectInUseProtection after DefaultTolerationSeconds.
fn builtin() -> Vec<Plugin> {
    vec![
        Plugin::mutating("NamespaceLifecycle", namespace_lifecycle::NamespaceLifecycle),
        Plugin::mutating("ServiceAccount", service_account::ServiceAccount).and(service_account::ServiceAccount),
        Plugin::mutating("NodeRestriction", node_restriction::mutate),
        Plugin::mutating("TaintNodesByCondition", nodes::mutate),
        Plugin::validating("PodSecurity", pod_security::validate),
        Plugin::mutating("Priority", priority::mutate).and(priority::validate),
        Plugin::mutating("DefaultTolerationSeconds", tolerations::mutate),
        Plugin::mutating("RuntimeClass", runtime_class::mutate).and(runtime_class::validate),
        Plugin::validating("CertificateApproval", certificates::approval),
        Plugin::validating("CertificateSigning", certificates::signing),
        Plugin::validating("CertificateSubjectRestriction", certificates::subject),
        Plugin::validating("AdminAccess", admin_access::validate),
        Plugin::validating("Unbuilt", unbuilt::validate),
    ]
}

/// What counts has to know that nobody else will refuse: ResourceQuota (validating) goes here, after the webhooks.
fn last() -> Vec<Plugin> {
    Vec::new()
}

/// The plugins in effect.
#[derive(Debug)]
pub struct Chain {
    plugins: Vec<Plugin>,
    mutating: Vec<Asked<dyn Mutating>>,
    validating: Vec<Asked<dyn Validating>>,
}

/// One phase of a plugin.
struct Asked<P: ?Sized> {
    plugin: Arc<P>,
    connects: bool,
}

impl<P: ?Sized> Asked<P> {
    fn of(plugin: &Option<Arc<P>>, connects: bool) -> Option<Self> {
        plugin.clone().map(|plugin| Self { plugin, connects })
    }

    fn handles(&self, request: &Request<'_>) -> bool {
        self.connects || request.operation != Operation::Connect
    }
}

impl<P: ?Sized> std::fmt::Debug for Asked<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asked").field("connects", &self.connects).finish_non_exhaustive()
    }
}

impl Chain {
    /// The built-in plugins, and `more` where upstream has its policies and webhooks.
    pub fn new(more: impl IntoIterator<Item = Plugin>) -> Self {
        let plugins: Vec<Plugin> = builtin().into_iter().chain(more).chain(last()).collect();
        let mutating = plugins.iter().filter_map(|p| Asked::of(&p.mutating, p.connects)).collect();
        let validating = plugins.iter().filter_map(|p| Asked::of(&p.validating, p.connects)).collect();
        Self { plugins, mutating, validating }
    }

    /// The plugins in order, with whether they mutate and whether they validate.
    pub fn plugins(&self) -> impl Iterator<Item = (&'static str, bool, bool)> {
        self.plugins.iter().map(|plugin| (plugin.name, plugin.mutating.is_some(), plugin.validating.is_some()))
    }

    /// Lets every mutating plugin change `object` (absent for deletes). What one wrote as clients write is defaulted at
    /// once, and then all look once more, as upstream's `reinvocation.go` has it.
    ///
    /// # Errors
    /// The first plugin's refusal.
    pub async fn mutate(
        &self,
        request: &Request<'_>,
        mut object: Option<&mut Value>,
        view: &dyn View,
    ) -> Result<(), Refusal> {
        if self.mutate_once(request, object.as_deref_mut(), view).await? {
            let again = Request { again: true, ..*request };
            self.mutate_once(&again, object, view).await?;
        }
        Ok(())
    }

    async fn mutate_once(
        &self,
        request: &Request<'_>,
        mut object: Option<&mut Value>,
        view: &dyn View,
    ) -> Result<bool, Refusal> {
        let mut raw = false;
        for asked in self.mutating.iter().filter(|asked| asked.handles(request)) {
            let mutated = match asked.plugin.mutate(request, object.as_deref_mut(), view) {
                Answer::Now(mutated) => mutated?,
                Answer::Later(mutated) => mutated.await?,
            };
            if mutated == Mutated::Raw {
                raw = true;
                if let Some(object) = object.as_deref_mut() {
                    request.body.default(object);
                }
            }
        }
        Ok(raw)
    }

    /// Asks every validating plugin.
    ///
    /// # Errors
    /// The first plugin's refusal.
    pub async fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Value>,
        view: &dyn View,
    ) -> Result<(), Refusal> {
        for asked in self.validating.iter().filter(|asked| asked.handles(request)) {
            match asked.plugin.validate(request, object, view) {
                Answer::Now(judged) => judged?,
                Answer::Later(judged) => judged.await?,
            }
        }
        Ok(())
    }
}
