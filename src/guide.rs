//! The pages of `docs/`, for reading beside the items. They are in the documentation only.
//!
//! The rules themselves are the page of [`rules`](crate::rules#behaviour-rules).

// What a page links to is defined before its own definitions, for rustdoc.
macro_rules! page {
    ($name:ident, $file:literal) => {
        #[doc = include_str!("guide/links.md")]
        #[doc = include_str!(concat!("../docs/", $file))]
        pub mod $name {}
    };
}

page!(hosting, "hosting.md");
page!(cluster, "cluster.md");
page!(connection, "connection.md");
page!(extensions, "extensions.md");
page!(states, "states.md");
page!(guarantees, "guarantees.md");
page!(durability, "durability.md");
page!(engines, "engines.md");
page!(amplification, "amplification.md");
page!(attacks, "attacks.md");

#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/cookbook/README.md")]
pub mod cookbook {
    page!(server, "cookbook/server.md");
    page!(users_sql, "cookbook/users-sql.md");
    page!(users_http, "cookbook/users-http.md");
    page!(users_tokens, "cookbook/users-tokens.md");
    page!(sign_up, "cookbook/sign-up.md");
    page!(bot, "cookbook/bot.md");
    page!(component, "cookbook/component.md");
    page!(archive, "cookbook/archive.md");
    page!(push, "cookbook/push.md");
    page!(administration, "cookbook/administration.md");
    page!(metrics, "cookbook/metrics.md");
    page!(testing, "cookbook/testing.md");
    page!(gateway, "cookbook/gateway.md");
    page!(websocket, "cookbook/websocket.md");
}

/// Why each choice that a reader may question was made.
pub mod decisions {
    page!(dependencies, "decisions/0001-dependencies.md");
    page!(sasl, "decisions/0002-sasl.md");
    page!(host_code_that_panics, "decisions/0003-host-code-that-panics.md");
    page!(
        a_parser_only_while_an_element_is_read,
        "decisions/0004-a-parser-only-while-an-element-is-read.md"
    );
    page!(mechanisms_and_their_tests, "decisions/0005-mechanisms-and-their-tests.md");
    page!(benches, "decisions/0006-benches.md");
    page!(stream_management, "decisions/0007-stream-management.md");
    page!(the_owner_closes, "decisions/0008-the-owner-closes.md");
    page!(rosters, "decisions/0009-rosters.md");
    page!(addresses, "decisions/0010-addresses.md");
    page!(one_order_for_an_account, "decisions/0011-one-order-for-an-account.md");
    page!(rooms, "decisions/0012-rooms.md");
    page!(hosts_and_streams, "decisions/0013-hosts-and-streams.md");
    page!(entities_inside, "decisions/0014-entities-inside.md");
    page!(websocket, "decisions/0015-websocket.md");
    page!(login, "decisions/0016-login.md");
    page!(fast, "decisions/0017-fast.md");
    page!(homes, "decisions/0018-homes.md");
    page!(tls_without_buffers, "decisions/0021-tls-without-buffers.md");
    page!(cores, "decisions/0022-cores.md");
    page!(postgresql, "decisions/0019-postgresql.md");
    page!(engines, "decisions/0020-engines.md");
}
