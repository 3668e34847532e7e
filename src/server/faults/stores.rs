//! The one place where stores are called, but those of extensions: each call is timed, its failure told, its panic a failure (FAULT-2).

use std::sync::Arc;

use jid::{BareJid, DomainRef};

use super::fault::StoreCall;
use super::{Faults, PeerAddress, is_panic};
use crate::environment::Environment;
use crate::server::metrics::RareCounters;
use crate::session::HostCode;
use crate::store::{
    AccountStore, Authenticator, BlockStore, CertificateMapper, ClientCertificate, ClientKey,
    ClientTokens, Credentials, LoginRequest, OfflineId, OfflineMessage, OfflineStore, Revision,
    RosterChange, RosterStore, ScramHash, ScramKeys, StoreError, StoreFuture, StoredContact,
    StoredRoster, Stores, SubscriptionRequest, TokenAuthenticator, TokenError, TokenStore,
    TokenVerdict, Verdict,
};

/// What a watched store tells of its calls.
#[derive(Clone)]
pub(in crate::server) struct StoreWatch {
    pub(in crate::server) faults: Arc<Faults>,
    pub(in crate::server) counters: Arc<RareCounters>,
    pub(in crate::server) environment: Arc<dyn Environment>,
}

/// A store of the host's, watched.
pub(in crate::server) struct Watched<S: ?Sized> {
    store: Arc<S>,
    watch: StoreWatch,
}

impl StoreWatch {
    /// The same stores, watched.
    pub(in crate::server) fn stores(&self, stores: Stores) -> Stores {
        let mut watched = stores;
        watched.accounts = Arc::new(self.watched(watched.accounts));
        watched.rosters = Arc::new(self.watched(watched.rosters));
        watched.blocks = Arc::new(self.watched(watched.blocks));
        watched.offline = watched.offline.map(|offline| Arc::new(self.watched(offline)) as _);
        watched.tokens = watched.tokens.map(|tokens| Arc::new(self.watched(tokens)) as _);
        watched
    }

    pub(in crate::server) fn watched<S: ?Sized>(&self, store: Arc<S>) -> Watched<S> {
        Watched { store, watch: self.clone() }
    }

    /// Does what was asked. A panic is a failure of the store.
    fn run<T: 'static>(
        &self,
        call: StoreCall,
        account: &BareJid,
        begin: impl FnOnce() -> StoreFuture<T>,
    ) -> StoreFuture<T> {
        let code = match call {
            StoreCall::CheckPassword | StoreCall::CheckToken | StoreCall::MapCertificate => {
                HostCode::Authenticator
            }
            _ => HostCode::Store,
        };
        let since = self.environment.now();
        let (watch, account) = (self.clone(), account.clone());
        let begun = self.faults.shielded(code, &PeerAddress::UNKNOWN, Some(&account), begin);
        let called = self.faults.call(code, Some(account.clone()), StoreError::failed, begun);
        Box::pin(async move {
            let answer = called.await;
            watch.counters.store_call(call, watch.environment.now().saturating_sub(since));
            if let Err(error) = &answer
                && !is_panic(error)
            {
                watch.faults.store_failed(call, error, &account);
            }
            answer
        })
    }
}

impl<S: ?Sized> Watched<S> {
    fn call<T: 'static>(
        &self,
        call: StoreCall,
        account: &BareJid,
        begin: impl FnOnce(&S) -> StoreFuture<T>,
    ) -> StoreFuture<T> {
        self.watch.run(call, account, || begin(&self.store))
    }
}

impl AccountStore for Watched<dyn AccountStore> {
    fn credentials(&self, account: &BareJid) -> StoreFuture<Option<Credentials>> {
        self.call(StoreCall::Credentials, account, |store| store.credentials(account))
    }

    fn exists(&self, account: &BareJid) -> StoreFuture<bool> {
        self.call(StoreCall::Exists, account, |store| store.exists(account))
    }

    fn set_credentials(&self, account: &BareJid, credentials: Credentials) -> StoreFuture<()> {
        let set = |store: &dyn AccountStore| store.set_credentials(account, credentials);
        self.call(StoreCall::SetCredentials, account, set)
    }

    fn adds_keys(&self) -> bool {
        let asks = || self.store.adds_keys();
        let faults = &self.watch.faults;
        faults.shielded(HostCode::Store, &PeerAddress::UNKNOWN, None, asks).unwrap_or(false)
    }

    fn add_keys(
        &self,
        account: &BareJid,
        proved: (ScramHash, ScramKeys),
        added: (ScramHash, ScramKeys),
    ) -> StoreFuture<bool> {
        let add = |store: &dyn AccountStore| store.add_keys(account, proved, added);
        self.call(StoreCall::AddKeys, account, add)
    }

    fn remove(&self, account: &BareJid) -> StoreFuture<bool> {
        self.call(StoreCall::RemoveAccount, account, |store| store.remove(account))
    }
}

impl Authenticator for Watched<dyn Authenticator> {
    fn check_login(
        &self,
        account: &BareJid,
        password: &str,
        login: &LoginRequest,
    ) -> StoreFuture<Verdict> {
        let check = |host: &dyn Authenticator| host.check_login(account, password, login);
        self.call(StoreCall::CheckPassword, account, check)
    }

    fn check_account(&self, account: &BareJid, login: &LoginRequest) -> StoreFuture<Verdict> {
        self.call(StoreCall::CheckPassword, account, |host| host.check_account(account, login))
    }
}

impl TokenAuthenticator for Watched<dyn TokenAuthenticator> {
    fn check_token(&self, token: &str, login: &LoginRequest) -> StoreFuture<TokenVerdict> {
        // Whose token it is only the answer says.
        let domain = BareJid::from_parts(None, login.domain());
        self.call(StoreCall::CheckToken, &domain, |host| host.check_token(token, login))
    }

    fn discovery(&self) -> TokenError {
        self.store.discovery()
    }
}

impl CertificateMapper for Watched<dyn CertificateMapper> {
    fn accounts(
        &self,
        certificate: &ClientCertificate,
        domain: &DomainRef,
    ) -> StoreFuture<Vec<BareJid>> {
        let map = |host: &dyn CertificateMapper| host.accounts(certificate, domain);
        self.call(StoreCall::MapCertificate, &BareJid::from_parts(None, domain), map)
    }
}

impl RosterStore for Watched<dyn RosterStore> {
    fn load(&self, account: &BareJid) -> StoreFuture<StoredRoster> {
        self.call(StoreCall::LoadRoster, account, |store| store.load(account))
    }

    fn contact(&self, account: &BareJid, contact: &BareJid) -> StoreFuture<StoredContact> {
        self.call(StoreCall::LoadContact, account, |store| store.contact(account, contact))
    }

    fn apply(&self, account: &BareJid, change: RosterChange) -> StoreFuture<()> {
        self.call(StoreCall::ChangeRoster, account, |store| store.apply(account, change))
    }

    fn apply_pair(
        &self,
        first: &BareJid,
        first_change: RosterChange,
        second: &BareJid,
        second_change: RosterChange,
    ) -> StoreFuture<()> {
        self.call(StoreCall::ChangeRoster, first, |store| {
            store.apply_pair(first, first_change, second, second_change)
        })
    }

    fn requests(&self, account: &BareJid) -> StoreFuture<Vec<SubscriptionRequest>> {
        self.call(StoreCall::LoadRequests, account, |store| store.requests(account))
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        self.call(StoreCall::ClearRoster, account, |store| store.clear(account))
    }
}

impl OfflineStore for Watched<dyn OfflineStore> {
    fn push(&self, account: &BareJid, message: OfflineMessage) -> StoreFuture<()> {
        self.call(StoreCall::PushMessage, account, |store| store.push(account, message))
    }

    fn list(&self, account: &BareJid) -> StoreFuture<Vec<(OfflineId, OfflineMessage)>> {
        self.call(StoreCall::ListMessages, account, |store| store.list(account))
    }

    fn remove(&self, account: &BareJid, ids: Vec<OfflineId>) -> StoreFuture<()> {
        self.call(StoreCall::RemoveMessages, account, |store| store.remove(account, ids))
    }

    fn count(&self, account: &BareJid) -> StoreFuture<usize> {
        self.call(StoreCall::CountMessages, account, |store| store.count(account))
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        self.call(StoreCall::ClearMessages, account, |store| store.clear(account))
    }
}

impl BlockStore for Watched<dyn BlockStore> {
    fn load(&self, account: &BareJid) -> StoreFuture<Vec<String>> {
        self.call(StoreCall::LoadBlocks, account, |store| store.load(account))
    }

    fn apply(
        &self,
        account: &BareJid,
        added: Vec<String>,
        removed: Vec<String>,
    ) -> StoreFuture<()> {
        self.call(StoreCall::ChangeBlocks, account, |store| store.apply(account, added, removed))
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        self.call(StoreCall::ClearBlocks, account, |store| store.clear(account))
    }
}

impl TokenStore for Watched<dyn TokenStore> {
    fn client(&self, account: &BareJid, client: &ClientKey) -> StoreFuture<Option<ClientTokens>> {
        self.call(StoreCall::LoadTokens, account, |store| store.client(account, client))
    }

    fn clients(&self, account: &BareJid) -> StoreFuture<Vec<(ClientKey, ClientTokens)>> {
        self.call(StoreCall::ListTokens, account, |store| store.clients(account))
    }

    fn replace(
        &self,
        account: &BareJid,
        client: &ClientKey,
        found: Option<Revision>,
        tokens: Option<ClientTokens>,
    ) -> StoreFuture<bool> {
        let replace = |store: &dyn TokenStore| store.replace(account, client, found, tokens);
        self.call(StoreCall::ChangeTokens, account, replace)
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        self.call(StoreCall::ClearTokens, account, |store| store.clear(account))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::task::{Context, Poll, Waker};

    use parking_lot::Mutex;

    use super::*;
    use crate::environment::Virtual;
    use crate::server::faults::{Fault, FaultKind};

    /// Fails, or panics, in every call.
    struct Bad(bool);

    impl Bad {
        fn fail<T: Send + 'static>(&self) -> StoreFuture<T> {
            let panics = self.0;
            Box::pin(async move {
                assert!(!panics, "no disk");
                Err(StoreError::failed("no disk"))
            })
        }
    }

    impl AccountStore for Bad {
        fn credentials(&self, _: &BareJid) -> StoreFuture<Option<Credentials>> {
            self.fail()
        }

        fn set_credentials(&self, _: &BareJid, _: Credentials) -> StoreFuture<()> {
            self.fail()
        }

        fn adds_keys(&self) -> bool {
            assert!(!self.0, "no disk");
            true
        }

        fn add_keys(
            &self,
            _: &BareJid,
            _: (ScramHash, ScramKeys),
            _: (ScramHash, ScramKeys),
        ) -> StoreFuture<bool> {
            self.fail()
        }

        fn remove(&self, _: &BareJid) -> StoreFuture<bool> {
            self.fail()
        }

        fn tokens(self: Arc<Self>) -> Option<Arc<dyn TokenStore>> {
            Some(self)
        }
    }

    impl TokenStore for Bad {
        fn client(&self, _: &BareJid, _: &ClientKey) -> StoreFuture<Option<ClientTokens>> {
            self.fail()
        }

        fn clients(&self, _: &BareJid) -> StoreFuture<Vec<(ClientKey, ClientTokens)>> {
            self.fail()
        }

        fn replace(
            &self,
            _: &BareJid,
            _: &ClientKey,
            _: Option<Revision>,
            _: Option<ClientTokens>,
        ) -> StoreFuture<bool> {
            self.fail()
        }

        fn clear(&self, _: &BareJid) -> StoreFuture<()> {
            self.fail()
        }
    }

    impl CertificateMapper for Bad {
        fn accounts(&self, _: &ClientCertificate, _: &DomainRef) -> StoreFuture<Vec<BareJid>> {
            self.fail()
        }
    }

    impl Authenticator for Bad {
        fn check_password(&self, _: &BareJid, _: &str) -> StoreFuture<Verdict> {
            self.fail()
        }
    }

    impl TokenAuthenticator for Bad {
        fn check_token(&self, _: &str, _: &LoginRequest) -> StoreFuture<TokenVerdict> {
            self.fail()
        }
    }

    impl RosterStore for Bad {
        fn load(&self, _: &BareJid) -> StoreFuture<StoredRoster> {
            self.fail()
        }

        fn apply(&self, _: &BareJid, _: RosterChange) -> StoreFuture<()> {
            self.fail()
        }

        fn apply_pair(
            &self,
            _: &BareJid,
            _: RosterChange,
            _: &BareJid,
            _: RosterChange,
        ) -> StoreFuture<()> {
            self.fail()
        }

        fn requests(&self, _: &BareJid) -> StoreFuture<Vec<SubscriptionRequest>> {
            self.fail()
        }

        fn clear(&self, _: &BareJid) -> StoreFuture<()> {
            self.fail()
        }
    }

    impl OfflineStore for Bad {
        fn push(&self, _: &BareJid, _: OfflineMessage) -> StoreFuture<()> {
            self.fail()
        }

        fn list(&self, _: &BareJid) -> StoreFuture<Vec<(OfflineId, OfflineMessage)>> {
            self.fail()
        }

        fn remove(&self, _: &BareJid, _: Vec<OfflineId>) -> StoreFuture<()> {
            self.fail()
        }

        fn count(&self, _: &BareJid) -> StoreFuture<usize> {
            self.fail()
        }

        fn clear(&self, _: &BareJid) -> StoreFuture<()> {
            self.fail()
        }
    }

    impl BlockStore for Bad {
        fn load(&self, _: &BareJid) -> StoreFuture<Vec<String>> {
            self.fail()
        }

        fn apply(&self, _: &BareJid, _: Vec<String>, _: Vec<String>) -> StoreFuture<()> {
            self.fail()
        }

        fn clear(&self, _: &BareJid) -> StoreFuture<()> {
            self.fail()
        }
    }

    #[test]
    fn fault_2_no_call_of_a_store_fails_in_silence() {
        for panics in [false, true] {
            let (told, log) = (Arc::new(Mutex::new(Vec::new())), Arc::<RareCounters>::default());
            let (hook, log_of) = (Arc::clone(&told), Arc::clone(&told));
            let world = Arc::new(Virtual::new(1));
            let environment = Arc::clone(&world) as Arc<dyn Environment>;
            let faults = Arc::new(Faults::new(
                Some(Box::new(move |fault| hook.lock().push(fault.clone()))),
                Arc::clone(&environment),
                Arc::clone(&log),
                false,
            ));
            let watch = StoreWatch { faults, counters: log, environment };
            let bad = Arc::new(Bad(panics));
            let stores = watch.stores(Stores::all_in(Arc::clone(&bad)));
            let offline = stores.offline.clone().unwrap();
            let kept = stores.tokens.clone().unwrap();
            let host = watch.watched::<dyn Authenticator>(Arc::clone(&bad) as _);
            let tokens = watch.watched::<dyn TokenAuthenticator>(Arc::clone(&bad) as _);
            let mapper = watch.watched::<dyn CertificateMapper>(bad);
            let domain = jid::DomainPart::new("example.com").unwrap().into_owned();
            let login = LoginRequest { domain, mechanism: "PLAIN", source: None, user_agent: None };
            let jid = &BareJid::new("juliet@example.com").unwrap();
            let (change, other) = (RosterChange::new, RosterChange::new);
            fn fails<T>(mut answer: StoreFuture<T>) {
                let poll = answer.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                assert!(matches!(poll, Poll::Ready(Err(_))));
            }
            fails(stores.accounts.credentials(jid));
            fails(stores.accounts.exists(jid));
            fails(stores.accounts.set_credentials(jid, Credentials::new()));
            let keys = |hash| (hash, ScramKeys::from_parts(vec![1], 1, vec![2], vec![3]));
            let (old, new) = (keys(ScramHash::Sha1), keys(ScramHash::Sha512));
            fails(stores.accounts.add_keys(jid, old, new));
            fails(stores.accounts.remove(jid));
            fails(host.check_login(jid, "secret", &login));
            fails(tokens.check_token("secret", &login));
            fails(stores.rosters.load(jid));
            fails(stores.rosters.contact(jid, jid));
            fails(stores.rosters.apply(jid, change()));
            fails(stores.rosters.apply_pair(jid, change(), jid, other()));
            fails(stores.rosters.requests(jid));
            fails(stores.rosters.clear(jid));
            fails(offline.push(jid, OfflineMessage::new(&b""[..], std::time::UNIX_EPOCH)));
            fails(offline.list(jid));
            fails(offline.remove(jid, Vec::new()));
            fails(offline.count(jid));
            fails(offline.clear(jid));
            fails(stores.blocks.load(jid));
            fails(stores.blocks.apply(jid, Vec::new(), Vec::new()));
            fails(stores.blocks.clear(jid));
            let client = &ClientKey::from_bytes([1; 32]);
            // More than are told of one kind at once (FAULT-5).
            world.advance(std::time::Duration::from_secs(60));
            fails(kept.client(jid, client));
            fails(kept.clients(jid));
            fails(kept.replace(jid, client, None, None));
            fails(kept.clear(jid));
            let told = told.lock();
            assert_eq!(told.len(), 25, "each once: {told:?}");
            assert!(told.iter().all(|fault| fault.to_string().contains("no disk")));
            let is_known =
                |fault: &Fault| fault.account().is_some_and(|one| one.domain() == jid.domain());
            assert!(told.iter().all(is_known));
            let is_panic = |kind: &FaultKind| matches!(kind, FaultKind::Panic { .. });
            assert!(told.iter().all(|fault| is_panic(fault.kind()) == panics));
            if !panics {
                let calls: BTreeSet<_> = told.iter().map(|fault| fault.kind().detail()).collect();
                // But those of extensions, of a whole account, and below.
                assert_eq!(calls.len(), StoreCall::ALL.len() - 5, "of stores: {calls:?}");
            }
            let before = told.len();
            drop(told);
            // This one is about a domain, and that one is answered.
            let certificate = ClientCertificate::new([1], []);
            fails(mapper.accounts(&certificate, jid.domain()));
            assert_eq!(stores.accounts.adds_keys(), !panics);
            let told = log_of.lock();
            assert_eq!(told.len(), before + 1 + usize::from(panics));
        }
    }
}
