"""The whole service for tests: nats-server, a gateway, models, keys; workers when a test wants them."""
import json
import os
import signal
import subprocess
import urllib.error
import urllib.request

import cluster
import qd
import st

GATEWAY = os.environ.get("QD_GATEWAY") or os.path.join(os.path.dirname(qd.QUANTCTL), "quant-gateway")


def need():
    cluster.need()
    if not os.access(GATEWAY, os.X_OK):
        qd.skip("no quant-gateway was built (libmicrohttpd-dev, libsqlite3-dev, libssl-dev)")


class Reply:
    def __init__(self, status, headers, data):
        self.status, self.headers, self.data = status, headers, data

    @property
    def json(self):
        return json.loads(self.data)


class Service:
    """One tenant, acme, with a key (self.key) and a signing pair (self.ak, self.sk); model "demo-ft-1"."""

    def __init__(self, directory, *settings):
        self.dir, self.settings = directory, settings
        self.cluster = cluster.Cluster(directory)
        self.cluster.start_server()
        self.models, self.files = os.path.join(directory, "models"), os.path.join(directory, "files")
        self.seal = os.path.join(directory, "seal")
        for d in (self.models, self.files, os.path.join(directory, "gateway")):
            os.mkdir(d)
        with open(os.open(self.seal, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as f:
            f.write(os.urandom(32).hex() + "\n")
        st.make_dir(os.path.join(self.models, "demo-ft-1"), st.llama(), side={"tokenizer.json": b"{}"})
        self.add_model("demo-ft-1", base="tiny")
        self.gateway = None
        self.port = cluster.free_port()
        self.start_gateway()
        self.key = self.ctl("keys", "add", "--tenant", "acme", "--user", "ann", "--json").event("key")["key"]
        pair = self.ctl("keys", "add", "--tenant", "acme", "--user", "ann", "--signing", "--seal-key", self.seal,
                        "--json").event("key")
        self.ak, self.sk = pair["id"], pair["secret"]
        cluster.wait_for(lambda: self.ask("GET", "/api/v1/files").status == 200, "the new key")

    def ctl(self, *args):
        return self.cluster.ctl(*args)

    def add_model(self, name, base, owner="acme"):
        self.ctl("models", "add", os.path.join(self.models, name), "--root", self.models, "--id", name, "--base-model", base,
                 "--owner", owner)

    def start_gateway(self):
        log = open(os.path.join(self.dir, "gateway.log"), "ab")
        args = [GATEWAY]
        for s in (f"listen=127.0.0.1:{self.port}", f"nats_url={self.cluster.url}", f"models_root={self.models}",
                  f"files_root={self.files}", f"output_root={self.cluster.out}", f"seal_key={self.seal}", "gateway=gw1",
                  f"index={os.path.join(self.dir, 'gateway', 'index.sqlite')}", "disk_free=0", *self.settings):
            args += ["--set", s]
        self.gateway = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                        env=qd.environment({"QD_TEMPLATES": os.path.join(qd.ROOT, "deploy", "templates")}))
        log.close()

        def ready():
            if self.gateway.poll() is not None:
                raise AssertionError("quant-gateway ended:\n" + self.text()[-3000:])
            return self.ask("GET", "/readyz").status == 200
        cluster.wait_for(ready, "the gateway")

    def text(self):
        with open(os.path.join(self.dir, "gateway.log"), encoding="utf-8", errors="replace") as f:
            return f.read()

    def ask(self, method, path, body=None, headers=None):
        """A plain request with the tenant's key; status 0: no answer."""
        r = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method,
                                   data=None if body is None else json.dumps(body).encode())
        if getattr(self, "key", None):
            r.add_header("Authorization", f"Bearer {self.key}")
        for name, value in (headers or {}).items():
            r.add_header(name, value)
        try:
            with urllib.request.urlopen(r, timeout=qd.HANG_S) as a:
                return Reply(a.status, dict(a.headers), a.read())
        except urllib.error.HTTPError as e:
            return Reply(e.code, dict(e.headers), e.read())
        except OSError:
            return Reply(0, {}, b"")

    def close(self):
        if self.gateway is not None and self.gateway.poll() is None:
            self.gateway.send_signal(signal.SIGTERM)
            self.gateway.wait(qd.HANG_S)
        self.cluster.close()
        for word in qd.CRASHES:
            if word in self.text():
                raise AssertionError(f"quant-gateway: {word}\n{self.text()[-4000:]}")
