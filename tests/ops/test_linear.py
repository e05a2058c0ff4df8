"""Matrix products against the rule oracle."""

from __future__ import annotations

from tests.rule_oracle import Case, SampleDraw, case, oracle, sample


@sample("Gemm", prunable="a[0] a[1] b[0] b[1] c[0] y[1]")
def plain(d: SampleDraw) -> Case:
    m, k, n = d.sizes(3)
    return case(a=d.normal(m, k), b=d.normal(k, n), c=d.normal(n))


@sample("Gemm", prunable="a[0] a[1] b[0] b[1] c[0] c[1] y[1]", fed="a c")
def both_transposed(d: SampleDraw) -> Case:
    m, k, n = d.sizes(3)
    return case(a=d.normal(k, m), b=d.normal(n, k), c=d.normal(m, n), transA=1, transB=1, alpha=0.5, beta=2.0)


@sample("Gemm", prunable="a[0] a[1] b[0] b[1] c[0] y[1]")
def bias_per_row(d: SampleDraw) -> Case:
    m, k, n = d.sizes(3)
    return case(a=d.normal(m, k), b=d.normal(n, k), c=d.normal(m, 1), transB=1)


@sample("Gemm", prunable="a[0] a[1] b[0] b[1] y[1]", since=11)
def without_bias(d: SampleDraw) -> Case:
    m, k, n = d.sizes(3)
    return case(a=d.normal(k, m), b=d.normal(k, n), transA=1)


@sample("Gemm", prunable="a[0] a[1] b[0] b[1] y[1]", fed="b")
def weight_on_the_left(d: SampleDraw) -> Case:
    m, k, n = d.sizes(3)
    return case(a=d.normal(m, k), b=d.normal(k, n), c=d.normal())


@sample("Gemm", prunable="a[0] a[1] b[0] b[1] y[1]", fed="a b c")
def of_activations(d: SampleDraw) -> Case:
    m, k, n = d.sizes(3)
    return case(a=d.normal(m, k), b=d.normal(k, n), c=d.normal(1, n))


@sample("MatMul", prunable="a[0] a[1] a[2] b[0] b[1] y[2]")
def projection(d: SampleDraw) -> Case:
    s, m, k, n = d.sizes(4)
    return case(a=d.normal(s, m, k), b=d.normal(k, n))


@sample("MatMul", prunable="a[0] a[1] b[0] b[1] y[1]", fed="b")
def projection_from_the_left(d: SampleDraw) -> Case:
    m, k, n = d.sizes(3)
    return case(a=d.normal(m, k), b=d.normal(k, n))


@sample("MatMul", prunable="a[0] a[1] a[2] a[3] b[1] b[3] y[0] y[1] y[2] y[3]", fed="a b")
def batched_and_broadcast(d: SampleDraw) -> Case:
    s, h, m, k, n = d.sizes(5)
    return case(a=d.normal(s, h, m, k), b=d.normal(1, h, k, n))


@sample("MatMul", prunable="a[0] a[1] b[0] b[1] b[2] y[0] y[1]", fed="a b")
def lower_rank_on_the_left(d: SampleDraw) -> Case:
    h, m, k, n = d.sizes(4)
    return case(a=d.normal(m, k), b=d.normal(h, k, n))


@sample("MatMul", prunable="a[0] b[0] b[1] b[2] y[0] y[1]")
def vector_times_matrices(d: SampleDraw) -> Case:
    h, k, n = d.sizes(3)
    return case(a=d.normal(k), b=d.normal(h, k, n))


@sample("MatMul", prunable="a[0] a[1] a[2] b[0] y[0] y[1]")
def matrices_times_vector(d: SampleDraw) -> Case:
    h, m, k = d.sizes(3)
    return case(a=d.normal(h, m, k), b=d.normal(k))


@sample("MatMul", prunable="a[0] b[0]", fed="a b")
def vector_times_vector(d: SampleDraw) -> Case:
    (k,) = d.sizes(1)
    return case(a=d.normal(k), b=d.normal(k))


@sample("Einsum", prunable="a[0] a[1] a[2] b[0] b[1] y[2]")
def einsum_projection(d: SampleDraw) -> Case:
    s, m, k, n = d.sizes(4)
    return case(a=d.normal(s, m, k), b=d.normal(k, n), equation="bmk, kn -> bmn")


@sample("Einsum", prunable="a[0] a[1] a[2] a[3] b[1] b[3] y[1] y[3]", fed="a b")
def einsum_attention(d: SampleDraw) -> Case:
    s, q, h, k, e = d.sizes(5)
    return case(a=d.normal(s, q, h, e), b=d.normal(s, k, h, e), equation="bqhe,bkhe->bhqk")


@sample("Einsum", prunable="a[0] a[1] b[1] y[0]", fed="a b")
def einsum_without_output(d: SampleDraw) -> Case:
    m, k, n = d.sizes(3)
    return case(a=d.normal(m, k), b=d.normal(k, n), equation="zk,ka")


@sample("Einsum", prunable="a[0] y[0]")
def einsum_diagonal(d: SampleDraw) -> Case:
    (n,) = d.sizes(1)
    return case(a=d.normal(n, n), equation="ii->i")


@sample("Einsum", prunable="a[0] a[1] y[0]")
def einsum_sum(d: SampleDraw) -> Case:
    m, n = d.sizes(2)
    return case(a=d.normal(m, n), equation="ij->j")


@sample("Einsum", prunable="a[1] b[0] b[1] c[1] y[0]", fed="a b c")
def einsum_of_three(d: SampleDraw) -> Case:
    i, j, k, m = d.sizes(4)
    return case(a=d.normal(i, j), b=d.normal(j, k), c=d.normal(k, m), equation="ij,jk,kl->li")


@sample("Einsum", prunable="a[0] a[1] a[2] b[0] b[1] y[0] y[1] y[2]", fed="a b")
def einsum_with_ellipsis(d: SampleDraw) -> Case:
    s, m, k, n = d.sizes(4)
    return case(a=d.normal(s, m, k), b=d.normal(k, n), equation="...mk,kn->...mn")


@sample("Einsum", prunable="a[0] a[1] a[2] a[3] b[1] b[2] b[3] y[0] y[1] y[2] y[3]", fed="a b")
def einsum_with_an_ellipsis_that_broadcasts(d: SampleDraw) -> Case:
    """[s, h, m, k] and [1, h, k, n]: axes of size 1 under an ellipsis are repeated."""
    s, h, m, k, n = d.sizes(5)
    return case(a=d.normal(s, h, m, k), b=d.normal(1, h, k, n), equation="...mk,...kn")


@sample("Einsum", prunable="a[0] a[1] a[2] a[3] b[2] b[3] y[0] y[1] y[2] y[3]", fed="a b")
def einsum_with_a_label_that_broadcasts(d: SampleDraw) -> Case:
    """Keys that all heads share: their axis of heads has size 1."""
    s, h, q, k, e = d.sizes(5)
    return case(a=d.normal(s, h, q, e), b=d.normal(s, 1, k, e), equation="bhqe,bhke->bhqk")


@sample("Einsum", prunable="a[0] b[0] b[1] y[0] y[1]", fed="a b")
def einsum_with_a_summed_label_that_broadcasts(d: SampleDraw) -> Case:
    m, k, n = d.sizes(3)
    return case(a=d.normal(m, 1), b=d.normal(k, n), equation="mk,kn->mn")


@sample("Einsum", fed="a b")
def einsum_with_an_ellipsis_that_the_output_lacks(d: SampleDraw) -> Case:
    (k,) = d.sizes(1)
    return case(a=d.normal(k), b=d.normal(k), equation="...k,...k->")


test_rule = oracle(__name__)
