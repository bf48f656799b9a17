import pytest

from unireel.training.precision import processor_has_fast_bf16

CPUINFO = (
    "processor\t: 0\nvendor_id\t: {}\nmodel name\t: a processor\nflags\t\t: fpu avx512f {} sse2\nbugs\t\t:\n"
)


@pytest.mark.parametrize(
    ("vendor", "flags", "fast"),
    [
        ("AuthenticAMD", "avx512_bf16", True),
        ("GenuineIntel", "avx512_bf16 amx_bf16", True),
        ("GenuineIntel", "avx512_bf16", False),
        ("AuthenticAMD", "avx512_vnni", False),
    ],
)
def test_bf16_counts_as_fast_where_products_were_measured_faster(vendor, flags, fast):
    assert processor_has_fast_bf16(CPUINFO.format(vendor, flags)) is fast
