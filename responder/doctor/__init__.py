"""
The doctor: looks at a delegation and at hostnames as resolvers and CAs do, and says what is wrong and what mends it.

It reads DNS from outside, and the settings and the store for what should be there. It mends nothing itself; on request
it presents a value, to see it arrive, and cleans it up. How its findings are printed is the command line's business.

    `walk`          from a name to the servers that answer for it, by a resolver
    `delegation`    what the servers of the zone above say of ours
    `nameservers`   our own, every address every way
    `hostname`      whether the name that a CA asks for leads to us
    `authorities`   CAA, whose meaning is in `caa`
    `probe`         a value of our own
    `api`           whether clients find the API; `visit` is one request to it
    `service`       what the service on this machine reports of itself
    `questions`     one question to one server
    `report`        ticks, notes and crosses
"""

from responder.doctor.api import Api
from responder.doctor.caa import Policy
from responder.doctor.examination import Case, Patient, examine
from responder.doctor.report import Check, Finding, Fix, Mark, Section
from responder.doctor.service import Service
from responder.doctor.walk import system_resolvers

__all__ = [
    "Api",
    "Case",
    "Check",
    "Finding",
    "Fix",
    "Mark",
    "Patient",
    "Policy",
    "Section",
    "Service",
    "examine",
    "system_resolvers",
]
