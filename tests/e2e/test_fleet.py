#!/usr/bin/env python3
"""A small fleet (tests/bench/fleet.c) against a real nats-server: many workers over few connections lose no job."""
import json
import os
import subprocess

import cluster
import qd

FLEET = os.path.join(os.path.dirname(qd.QUANTCTL), "fleet")


class Fleet(qd.Case):
    def test_every_job_of_a_small_fleet_succeeds_and_nothing_is_left(self):
        c = cluster.Cluster(self.dir)
        self.addCleanup(c.close)
        c.start_server()
        r = subprocess.run([FLEET, c.url, "--jobs", "300", "--workers", "40", "--keepers", "5", "--work", "100", "--threads", "4",
                            "--limit", str(qd.HANG_S)], capture_output=True, timeout=2 * qd.HANG_S, check=False)
        self.assertEqual(r.returncode, 0, r.stderr.decode())
        told = json.loads(r.stdout)
        self.assertEqual((told["records"], told["succeeded"], told["queue_left"]), (300, 300, 0), told)


if __name__ == "__main__":
    cluster.need()
    if not os.access(FLEET, os.X_OK):
        qd.skip("no fleet was built (tests/bench)")
    qd.main()
