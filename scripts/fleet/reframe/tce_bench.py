# SPDX-License-Identifier: Apache-2.0 OR MIT
"""tce-bench as a ReFrame test: verified, and each operation's times as performance variables.

    reframe -C SITE.py -c scripts/fleet/reframe -r
    reframe -C SITE.py -c scripts/fleet/reframe -r -S "TceBench.options=--groups,4,--levels,2"

tce-bench has to be in PATH on the nodes (or load its module: `modules` below). A system's figures come
into `reference` once they have been measured there; without them values are logged and nothing is judged.
ReFrame's tolerance is a band around a fixed number: to compare two builds on one node, `tce-bench gate
--run OLD NEW` is the surer way.
"""

import json
import os

import reframe as rfm
import reframe.utility.sanity as sn
import reframe.utility.typecheck as typ

RESULT = 'result.json'
# Of the operations that a run has; those of phases that did not run are not there.
MEASURES = {'min': lambda latency: latency['min'], 'p50': lambda latency: latency['p']['50']}


@rfm.simple_test
class TceBench(rfm.RunOnlyRegressionTest):
    descr = 'DMA mapping through TCE tables'
    valid_systems = ['*']
    valid_prog_environs = ['*']
    options = variable(typ.List[str], value=['--window', '64M', '--duration', '200ms'])
    modules = []
    executable = 'tce-bench'
    num_tasks = 1
    # Times beside other people's jobs say little.
    exclusive_access = True
    time_limit = '10m'
    # As {'system:partition': {'ring.map/p50': (92.0, None, 0.05, 'ns')}}: at most 5 % above 92 ns.
    reference = {'*': {}}

    @run_before('run')
    def prepare(self):
        self.executable_opts = ['run', *self.options, '--quiet', '--json', RESULT]

    @deferrable
    def result(self):
        with open(os.path.join(self.stagedir, RESULT), encoding='utf-8') as file:
            return json.load(file)

    @sanity_function
    def verified(self):
        # null: nobody independent of the engine could be asked; false: something was wrong.
        doc = self.result()
        return sn.all([
            sn.assert_true(doc['run']['complete'], 'the run was interrupted'),
            sn.assert_true(doc['verified'], 'not verified: {0} is not true'),
        ])

    @run_before('performance')
    def measure(self):
        doc = self.result().evaluate()
        self.perf_variables = {
            f'{result["id"]}/{name}': sn.make_performance_function(sn.defer(value), 'ns')
            for result in doc['results']
            for name, measure in MEASURES.items()
            if (value := measure(result['latency'])) is not None
        }
