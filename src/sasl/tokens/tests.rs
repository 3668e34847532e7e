use std::sync::Arc;

use super::*;
use crate::environment::Virtual;

const NONE: Mechanism = Mechanism::HtSha256None;
const EXPR: Mechanism = Mechanism::HtSha256Expr;
const HOUR: Duration = Duration::from_secs(3600);
const REFUSED: Result<bool, SaslError> = Err(SaslError::NotAuthorized);
const RETIRED_TOKEN: Result<bool, SaslError> = Err(SaslError::CredentialsExpired);

/// A client of an account and what the store has of it.
struct World {
    environment: Arc<Virtual>,
    policy: Policy,
    holder: Holder,
    record: Option<ClientTokens>,
    credentials: Option<Credentials>,
}

fn holder(account: &str, id: u8) -> Holder {
    let account = BareJid::new(account).unwrap();
    let client = ClientKey::from_bytes([id; 32]);
    Holder { account, client }
}

fn credentials(salt: u8) -> Credentials {
    use crate::store::ScramKeys;
    let keys =
        |length| ScramKeys::from_parts(vec![salt; 16], 4096, vec![salt; length], vec![0; length]);
    Credentials::from_keys(Some(keys(20)), Some(keys(32)))
}

impl World {
    fn new() -> Self {
        let environment = Arc::new(Virtual::new(1));
        let policy = Policy::new(&*environment);
        let (holder, credentials) = (holder("juliet@example.com", 1), Some(credentials(1)));
        Self { environment, policy, holder, record: None, credentials }
    }

    fn fingerprint(&self) -> Fingerprint {
        self.credentials.as_ref().map(|known| self.policy.fingerprint(known)).unwrap_or_default()
    }

    fn issue(&mut self, mechanism: Mechanism) -> String {
        self.issue_again(mechanism, false)
    }

    fn issue_again(&mut self, mechanism: Mechanism, again: bool) -> String {
        let (fingerprint, found) = (self.fingerprint(), self.record.take());
        let (record, issued) = self.policy.issue_token(
            &self.holder,
            found,
            mechanism,
            &fingerprint,
            again,
            &*self.environment,
        );
        self.record = Some(record);
        issued.token
    }

    fn check(&self, proof: &FastProof, count: Option<u64>) -> Result<Accepted, SaslError> {
        let standing = self.credentials.clone().map(|known| Standing { credentials: Some(known) });
        let (record, now) = (self.record.as_ref(), self.environment.utc());
        self.policy.check_token(&self.holder, record, standing.as_ref(), proof, count, now)
    }

    /// Whether a new token is due; what changes is stored.
    fn login(&mut self, token: &str, mechanism: Mechanism) -> Result<bool, SaslError> {
        self.login_counted(token, mechanism, None)
    }

    fn login_counted(
        &mut self,
        token: &str,
        mechanism: Mechanism,
        count: Option<u64>,
    ) -> Result<bool, SaslError> {
        let proved = self.check(&proof(token, mechanism), count)?;
        self.record = proved.changed.or_else(|| self.record.take());
        Ok(proved.used.is_due)
    }
}

fn proof(token: &str, mechanism: Mechanism) -> FastProof {
    let binding = if mechanism == NONE { vec![] } else { vec![7; 32] };
    let message = [b"Initiator", &*binding].concat();
    FastProof { mechanism, proof: ScramHash::Sha256.hmac(token.as_bytes(), &message), binding }
}

#[test]
fn fast_3_a_token_works_for_its_account_client_and_mechanism_alone() {
    let mut world = World::new();
    let token = world.issue(NONE);
    assert_eq!(world.login(&token, NONE), Ok(false));
    assert_eq!(world.login(&token, EXPR), REFUSED);
    for other in [holder("romeo@example.com", 1), holder("juliet@example.com", 2)] {
        let mut theirs = World { holder: other, record: world.record.clone(), ..World::new() };
        assert_eq!(theirs.login(&token, NONE), REFUSED);
        let own = theirs.issue(NONE);
        assert_ne!(own, token);
        assert_eq!(theirs.login(&own, NONE), Ok(false));
    }
    // Even where somebody changes the name in the database.
    world.record.as_mut().unwrap().current.as_mut().unwrap().mechanism = EXPR.as_str().into();
    assert_eq!(world.login(&token, NONE), REFUSED);
    assert_eq!(world.login(&token, EXPR), REFUSED);
}

#[test]
fn fast_3_another_channel_or_a_changed_proof_is_refused() {
    let mut world = World::new();
    let token = world.issue(EXPR);
    let good = proof(&token, EXPR);
    assert!(world.check(&good, None).is_ok());
    let other = FastProof { binding: vec![8; 32], ..good.clone() };
    assert_eq!(world.check(&other, None).err(), Some(SaslError::NotAuthorized));
    for at in 0..good.proof.len() {
        let mut changed = good.clone();
        changed.proof[at] ^= 1;
        assert_eq!(world.check(&changed, None).err(), Some(SaslError::NotAuthorized));
    }
}

#[test]
fn fast_4_a_new_token_voids_the_current_one_when_it_is_used() {
    let mut world = World::new();
    let first = world.issue(NONE);
    assert_eq!(world.login(&first, NONE), Ok(false));
    let second = world.issue(NONE);
    assert_ne!(first, second);
    // As often as the client has not got the new one.
    for _ in 0..3 {
        assert_eq!(world.login(&first, NONE), Ok(false));
    }
    assert_eq!(world.login(&second, NONE), Ok(false));
    assert_eq!(world.login(&first, NONE), RETIRED_TOKEN);
    assert_eq!(world.login(&second, NONE), Ok(false));
}

#[test]
fn fast_4_a_newer_token_voids_one_that_was_not_used() {
    let mut world = World::new();
    let current = world.issue(NONE);
    assert_eq!(world.login(&current, NONE), Ok(false));
    let (lost, new) = (world.issue(NONE), world.issue(NONE));
    assert_eq!(world.login(&lost, NONE), RETIRED_TOKEN);
    assert_eq!(world.login(&current, NONE), Ok(false));
    assert_eq!(world.login(&new, NONE), Ok(false));
}

#[test]
fn fast_4_logins_with_one_token_are_told_the_same_new_one() {
    let mut world = World::new();
    let current = world.issue(NONE);
    assert_eq!(world.login(&current, NONE), Ok(false));
    let new = world.issue_again(NONE, true);
    let expiry = world.record.as_ref().unwrap().new.as_ref().unwrap().expiry;
    world.environment.advance(HOUR);
    assert_eq!(world.issue_again(NONE, true), new);
    assert_eq!(world.record.as_ref().unwrap().new.as_ref().unwrap().expiry, expiry);
    assert_ne!(world.issue_again(EXPR, true), new, "another mechanism");
    let new = world.issue_again(NONE, true);
    world.environment.advance(24 * HOUR);
    assert_ne!(world.issue_again(NONE, true), new, "it is old by now");
}

#[test]
fn fast_4_tokens_are_renewed_by_age_and_end_with_their_time() {
    let mut world = World::new();
    world.policy = world.policy.fast(FastPolicy::new().lifetime(10 * HOUR).renewal(4 * HOUR));
    let first = world.issue(NONE);
    world.environment.advance(4 * HOUR - Duration::from_secs(1));
    assert_eq!(world.login(&first, NONE), Ok(false));
    world.environment.advance(Duration::from_secs(1));
    assert_eq!(world.login(&first, NONE), Ok(true));
    world.environment.advance(6 * HOUR - Duration::from_secs(1));
    assert_eq!(world.login(&first, NONE), Ok(true));
    world.environment.advance(Duration::from_secs(1));
    assert_eq!(world.login(&first, NONE), RETIRED_TOKEN);
    assert_eq!(
        world.policy.tokens_expire(world.record.as_ref().unwrap(), world.environment.utc()),
        None
    );
    // A shorter life is that of older tokens too, and the renewal comes in time.
    let second = world.issue(NONE);
    world.environment.advance(HOUR);
    world.policy = world.policy.fast(FastPolicy::new().lifetime(2 * HOUR));
    assert_eq!(world.login(&second, NONE), Ok(true));
    world.environment.advance(HOUR);
    assert_eq!(world.login(&second, NONE), RETIRED_TOKEN);
}

#[test]
fn fast_6_a_count_is_higher_each_time() {
    let mut world = World::new();
    let token = world.issue(NONE);
    assert_eq!(world.login_counted(&token, NONE, Some(0)), REFUSED);
    assert_eq!(world.login_counted(&token, NONE, Some(1)), Ok(false));
    assert_eq!(world.login_counted(&token, NONE, Some(1)), REFUSED);
    assert_eq!(world.login_counted(&token, NONE, Some(u64::MAX)), Ok(false));
    for count in [0, 2, u64::MAX] {
        assert_eq!(world.login_counted(&token, NONE, Some(count)), REFUSED);
    }
    assert_eq!(world.login(&token, NONE), REFUSED, "who has counted goes on");
    // Each token has its own.
    let other = world.issue(NONE);
    assert_eq!(world.login_counted(&other, NONE, Some(1)), Ok(false));
}

#[test]
fn fast_7_the_last_tokens_are_known_and_others_are_not() {
    let mut world = World::new();
    let tokens: Vec<_> = (0..=RETIRED).map(|_| world.issue(NONE)).collect();
    let known = |token: &String| world.check(&proof(token, NONE), None).err();
    assert_eq!(known(&tokens[0]), Some(SaslError::NotAuthorized), "long ago");
    for token in &tokens[1..tokens.len() - 1] {
        assert_eq!(known(token), Some(SaslError::CredentialsExpired));
    }
    assert_eq!(known(&String::new()), Some(SaslError::NotAuthorized));
    assert_eq!(known(tokens.last().unwrap()), None);
    // The number that no token has had.
    let holder = &world.holder;
    let zero = derive(&world.policy.secret, holder, NONE, world.record.as_ref().unwrap(), 0);
    assert_eq!(known(&zero), Some(SaslError::NotAuthorized));
}

#[test]
fn fast_7_tokens_end_with_the_credentials_they_were_issued_for() {
    let mut world = World::new();
    let token = world.issue(NONE);
    let old = world.credentials.clone();
    world.credentials = Some(credentials(2));
    assert_eq!(world.login(&token, NONE), RETIRED_TOKEN);
    // The same password with one more kind of key, or one less.
    let Credentials { scram_sha_1, scram_sha_256, .. } = old.unwrap();
    let fewer = [(scram_sha_1.clone(), None), (None, scram_sha_256.clone())];
    for (one, other) in fewer {
        world.credentials = Some(Credentials::from_keys(one, other));
        assert_eq!(world.login(&token, NONE), Ok(false));
    }
    world.credentials = Some(Credentials::new());
    assert_eq!(world.login(&token, NONE), RETIRED_TOKEN, "no keys at all");
    // Issued where there were none: they end when there are some.
    let token = world.issue(NONE);
    assert_eq!(world.login(&token, NONE), Ok(false));
    world.credentials = Some(credentials(2));
    assert_eq!(world.login(&token, NONE), RETIRED_TOKEN);
    world.credentials = None;
    assert_eq!(world.login(&token, NONE), REFUSED, "no account");
}

#[test]
fn sasl_7_only_a_right_token_is_told_that_the_account_is_disabled() {
    let mut world = World::new();
    let token = world.issue(NONE);
    world.credentials.as_mut().unwrap().disabled = true;
    assert_eq!(world.login(&token, NONE), Err(SaslError::AccountDisabled));
    assert_eq!(world.login("other", NONE), REFUSED);
}

#[test]
fn fast_9_tokens_are_of_the_secret_and_a_former_one_is_known() {
    let mut world = World::new();
    let token = world.issue(NONE);
    let former = world.policy.secret;
    world.policy = world.policy.secret([9; 32]);
    assert_eq!(world.login(&token, NONE), REFUSED);
    world.policy = world.policy.former_secrets(&[[3; 32], former]);
    assert_eq!(world.login(&token, NONE), RETIRED_TOKEN);
    let new = world.issue(NONE);
    assert_ne!(new, token);
    assert_eq!(world.login(&new, NONE), Ok(false));
    assert_eq!(world.login(&token, NONE), RETIRED_TOKEN);
}

#[test]
fn fast_8_tokens_are_256_bits_of_text_and_never_repeat() {
    let mut world = World::new();
    let mut seen: Vec<String> = (0..100).map(|_| world.issue(NONE)).collect();
    world.record = None;
    seen.extend((0..100).map(|_| world.issue(NONE)));
    for token in &seen {
        assert_eq!(URL_SAFE_NO_PAD.decode(token).unwrap().len(), 32);
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 200);
}

#[test]
fn fast_4_a_login_changes_the_record_only_where_there_is_something_to_keep() {
    let mut world = World::new();
    let token = world.issue(NONE);
    assert!(world.check(&proof(&token, NONE), None).unwrap().changed.is_some(), "new to current");
    assert_eq!(world.login(&token, NONE), Ok(false));
    assert!(world.check(&proof(&token, NONE), None).unwrap().changed.is_none());
    assert!(world.check(&proof(&token, NONE), Some(1)).unwrap().changed.is_some(), "the count");
    world.environment.advance(2 * HOUR);
    let changed = world.check(&proof(&token, NONE), None).unwrap().changed.unwrap();
    assert_eq!(changed.used, world.environment.utc());
}
