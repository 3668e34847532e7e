-- Prosody as the server for the scenarios of this folder: loopback only, one run's data. The script `run`
-- sets WORK, PORT and TLS_PORT.
local work = os.getenv("WORK")

run_as_root = true
daemonize = false
pidfile = work .. "/prosody.pid"
data_path = work .. "/prosody"
log = { { levels = { min = "warn" }, to = "console" } }

storage = "internal"
authentication = "internal_plain"
modules_enabled = { "roster", "saslauth", "tls", "ping", "disco", "offline" }
modules_disabled = { "s2s", "limits" }

interfaces = { "127.0.0.1" }
local_interfaces = { "127.0.0.1" }
c2s_ports = { tonumber(os.getenv("PORT")) }
c2s_direct_tls_ports = { tonumber(os.getenv("TLS_PORT")) }
s2s_ports = {}
http_ports = {}
https_ports = {}

c2s_require_encryption = true
conflict_resolve = "kick_old"
ssl = { certificate = work .. "/cert.pem", key = work .. "/key.pem" }
c2s_direct_tls_ssl = ssl

VirtualHost "localhost"
