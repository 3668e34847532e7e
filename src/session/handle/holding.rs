//! Whether stanzas are held back from a client (XEP-0352).

use super::SessionHandle;
use crate::connection::SharedConnection;
use crate::session::outbound::After;

impl<C: SharedConnection> SessionHandle<C> {
    /// Holds back from now on what the registry's [`hold`](crate::session::RegistryBuilder::hold) hook names, or lets
    /// it all go, in order. A session without a transport holds nothing back, and each transport
    /// starts without (CSI-1).
    pub fn set_holding(&self, holding: bool) {
        let Some(registry) = self.0.registry.upgrade() else { return };
        // The flag says that the hook is to be asked; what counts is what stands under the lock.
        self.0.set_holding(holding);
        let after = {
            let mut out = self.0.out.lock();
            if holding {
                out.start_holding(&registry.retained_bytes);
                After::Nothing
            } else {
                out.stop_holding();
                drop(out);
                self.0.kick()
            }
        };
        registry.settle(&self.0, after);
    }
}
