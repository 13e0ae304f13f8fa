"""Plans for property tests: few values for each field, so that sets of them have much in common."""

from __future__ import annotations

from hypothesis import strategies as st

from qanat.plan import EndpointPlan, LimitsPlan, RemotePlan, TcpPlan, UdpPlan

__all__ = ["plan_lists", "plan_sets", "plans"]

_LISTENS = [
    "0.0.0.0:80",
    "127.0.0.1:80",
    "127.0.0.1:0",
    "[::]:80",
    "[::1]:0",
    "10.0.0.1:443",
]

plans: st.SearchStrategy[EndpointPlan] = st.builds(
    EndpointPlan,
    id=st.sampled_from(["a", "b", "c", "d"]),
    listen=st.sampled_from(_LISTENS),
    remotes=st.sampled_from([(RemotePlan(host="h", port=1),), (RemotePlan(host="g", port=2),)]),
    tcp=st.sampled_from([None, TcpPlan(), TcpPlan(accept_mptcp=True), TcpPlan(linger=1.0)]),
    udp=st.sampled_from([None, UdpPlan(), UdpPlan(timeout=1.0)]),
    ipv6_only=st.booleans(),
    listen_interface=st.sampled_from([None, "eth0"]),
    limits=st.sampled_from([LimitsPlan(), LimitsPlan(connections=5)]),
)

plan_lists = st.lists(plans, max_size=8)
"""Any list, with ids and whole plans repeated."""

plan_sets = st.lists(plans, max_size=6, unique_by=lambda plan: plan.id)
"""As a relay has them: no id twice."""
