#!/usr/bin/env python3
"""A nats-server with an operator, accounts and users as JSON Web Tokens: who has a credentials file of the account is let in."""
import os
import time

import big
import cluster
import nats_jwt
import qd


class Jwt(cluster.Case):
    def setUp(self):
        qd.Case.setUp(self)
        self.operator = nats_jwt.Operator()
        self.c = cluster.Cluster(self.dir)
        self.addCleanup(self.c.close)
        with open(self.c.conf, "a", encoding="ascii") as f:
            f.write(self.operator.conf())
        self.c.start_server()

    def creds(self, name, operator=None, **more):
        return (operator or self.operator).credentials(os.path.join(self.dir, name + ".creds"), name, **more)

    def ctl(self, path, *args, rc=0):
        return self.c.ctl(*args, rc=rc, env={"QD_NATS_CREDS": path})

    def test_signatures_are_those_of_the_rfc(self):
        k = nats_jwt.Key(nats_jwt.USER, bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"))
        self.assertEqual(k.bytes.hex(), "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
        self.assertEqual(k.sign(b"\x72").hex(), "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
                         "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00")

    def test_a_job_runs_for_users_of_the_account(self):
        w, me = self.creds("worker"), self.creds("me")
        self.c.worker("w", "threads=1", f"nats_credentials={w}")
        out = os.path.join(self.c.out, "j")
        e = self.ctl(me, "submit", big.model(), "--template", qd.TEMPLATE, "-o", out, "--json").event("submitted")
        r = self.c.wait_for(lambda: next((j for j in [self.ctl(me, "get", e["id"], "--json").event("job")] if j["state"] in cluster.END), None),
                            "the job's end")
        self.assertEqual(r["state"], "SUCCEEDED", self.c.logs())
        self.assertIn("Quantization succeeded!", self.ctl(me, "logs", e["id"]).out)

    def test_others_are_refused(self):
        me, good = self.creds("me"), self.c.worker("good", f"nats_credentials={self.creds('worker')}")
        self.c.wait_for(lambda: "connected to the bus" in good.text() and self.ctl(me, "list", rc=None).rc == 0, "the buckets")
        cases = {"a stranger": self.creds("stranger", operator=nats_jwt.Operator()),
                 "one whose token is out of date": self.creds("late", exp=int(time.time()) - 60)}
        for what, path in cases.items():
            with self.subTest(what):
                r = self.ctl(path, "list", rc=None)
                self.assertNotEqual(r.rc, 0)
                self.assertIn("refuses these credentials", r.err)
        w = self.c.worker("w", f"nats_credentials={cases['a stranger']}")
        self.assertEqual(w.p.wait(qd.HANG_S), 1)
        self.assertIn("refuses our credentials", w.text())

    def test_a_file_that_others_can_read_is_refused(self):
        path = self.creds("open")
        os.chmod(path, 0o644)
        r = self.ctl(path, "list", rc=None)
        self.assertEqual(r.rc, 78, str(r))
        self.assertIn("only its owner can read", r.err)


if __name__ == "__main__":
    cluster.main()
