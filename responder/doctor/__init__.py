"""
The doctor examines a delegation and hostnames as resolvers and CAs do, and reports what is wrong and how to fix it.

It queries DNS from outside, and compares the replies with the settings and the store. It changes nothing; on request it
presents a test value, checks that it is served, and cleans it up. The command line prints the findings.

    `walk`          finds the servers of a name, with the help of a resolver
    `delegation`    what the servers of the parent zone have about our zone
    `nameservers`   our own nameservers: each address, over UDP and TCP
    `hostname`      whether the name that a CA queries leads to us
    `authorities`   the CAA records of a hostname; `caa` knows what they mean
    `probe`         a test value
    `api`           whether clients reach the API; `visit` is one request to it
    `service`       what the service on this machine reports of itself
    `questions`     one question to one server
    `report`        ticks, notes and crosses
"""

from responder.doctor.api import Api
from responder.doctor.caa import Policy
from responder.doctor.delegation import undelegated
from responder.doctor.examination import Case, Patient, examine
from responder.doctor.report import CheckName, Finding, Fix, Mark, Section
from responder.doctor.service import ServiceReport
from responder.doctor.walk import system_resolvers

__all__ = [
    "Api",
    "Case",
    "CheckName",
    "Finding",
    "Fix",
    "Mark",
    "Patient",
    "Policy",
    "Section",
    "ServiceReport",
    "examine",
    "system_resolvers",
    "undelegated",
]
