"""`Taxonomy`: categories of sentences, found without labels in activations (arXiv 2510.07364, section 3.1).

Vectors (`steering.categories.sentences`) are centred, scaled and brought to length 1:

    z = u / ‖u‖,  u = (x − mean) / std

and a category is the argmax of `scores(x)`, [n, categories]:

- `topk-sae`: a sparse autoencoder with as many latents as categories, k = 3 of them at work for a sentence,
  z ≈ Σ_{j ∈ top 3} a_j d_j + b, a = W (z − b) + c; the score is a. As in the paper no ReLU follows the top-k, the rows
  of the decoder have length 1, and encoder and decoder are tied at the start. Where they start the paper draws at
  random; with so few latents that leaves some without any sentence, so ours start at sentences far from each other.
  (Three signed latents may share what one could say: on planted clusters its argmax is less stable than a centre.)
- `k-means`: −‖z − c‖²; `spherical-k-means`: z · c with ‖c‖ = 1.
- `gmm`: the log posterior, up to a constant, of a Gaussian mixture with diagonal covariances on `COMPONENTS` principal
  components (a variance for each of d_model dimensions is not to be had from a few thousand sentences).
- `full-gmm`: the same with full covariances, of u (not brought to length 1), on one principal component less than there
  are categories: so many dimensions hold the centres of n categories, and beyond them wording makes the larger
  differences.

Dividing by the standard deviation is ours: a few dimensions of a stream are many times larger than all others (arXiv
2402.17762) and would be the categories. `standardise=False` is the paper's way.

A taxonomy is frozen data, hashed by its content, saved as safetensors and JSON. Its `site` and `reading` say which
activations it is to be given; what is read otherwise gets labels that mean nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

import steering.interventions  # noqa: F401  lets a site be stored
from probes.errors import UserError, unknown
from probes.sites import Site
from steering import storage
from steering.categories.sentences import parts_of, standardised

FILE = "taxonomy"
TOP_K = 3
STEPS, LR, BATCH = 400, 0.01, 512  # of the SAE's Adam
RESTARTS = 4  # of k-means and mixtures; the best by their own objective is kept
COMPONENTS = 32
FEWER = "Number of distinct clusters"  # begins what scikit-learn warns of where fewer points than centres differ

Values = Float[Tensor, "n d"]
Parameters = dict[str, Tensor]


@storage.register
@dataclass(frozen=True, eq=False)
class Taxonomy:
    """Categories of sentences.

    Args:
        site: where their activations are read, in the model that they were found in.
        reading: how (`steering.categories.sentences.POOLINGS`).
        method: the kind, one of `KINDS`.
        center, scale: what is taken off an activation, and what it is divided by.
        parameters: of the kind.
        made: how: sentences, seed, model hash.
        names: of the categories, where they were named.
    """

    site: Site
    reading: str
    method: str
    center: Float[Tensor, " d"]
    scale: Float[Tensor, " d"]
    parameters: Mapping[str, Tensor]
    made: Mapping[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.method not in KINDS:
            raise unknown("kind of taxonomy", self.method, KINDS)
        parts_of(self.reading)
        if self.names and len(self.names) != self.categories:
            raise UserError(f"{len(self.names)} names were given for {self.categories} categories; give one each")

    @property
    def categories(self) -> int:
        return len(self.parameters[KINDS[self.method].rows])

    @property
    def digest(self) -> str:
        return storage.digest(self)

    def normalised(self, x: Values) -> Values:
        """Centred, scaled and, for most kinds, of length 1.

        Raises:
            UserError: activations of another width, NaN or infinity.
        """
        if x.shape[1] != len(self.center):
            raise UserError(
                f"activations of width {x.shape[1]} were given; this taxonomy reads {self.reading!r} at {self.site}, "
                f"of width {len(self.center)}"
            )
        _check_finite(x)
        u = (x.detach().float().cpu() - self.center) / self.scale
        return u / u.norm(dim=1, keepdim=True).clamp(min=1e-12) if KINDS[self.method].unit else u

    def scores(self, x: Values) -> Float[Tensor, "n categories"]:
        """How well each category fits each activation; comparable within an activation."""
        return KINDS[self.method].scores(self.normalised(x), self.parameters)

    def labels(self, x: Values) -> Int[Tensor, " n"]:
        """The category of each activation."""
        return self.scores(x).argmax(1)

    def save(self, folder: Path | str) -> Path:
        storage.write(Path(folder), FILE, self)
        return Path(folder)

    @staticmethod
    def load(folder: Path | str) -> Taxonomy:
        """What `save` wrote.

        Raises:
            UserError: no taxonomy there, or a file of it is cut.
        """
        found = storage.read(Path(folder), FILE)
        if not isinstance(found, Taxonomy):
            raise UserError(f"{str(folder)!r} holds a {type(found).__name__}; give a folder with a taxonomy")
        return found


def fit(
    x: Values,
    kind: str,
    n: int,
    seed: int = 0,
    *,
    site: Site,
    reading: str = "mean",
    standardise: bool | None = None,
    **about: Any,
) -> Taxonomy:
    """Find n categories.

    Args:
        x: one activation a sentence, read at `site` as `reading` says.
        kind: one of `KINDS`.
        n: categories.
        seed: of starts and batches; equal seeds find equal categories.
        standardise: divide each dimension by its standard deviation; as suits the reading unless given.
        about: kept in `made`.

    Raises:
        UserError: an unknown kind or reading; categories that do not fit the sentences; NaN or infinity.
    """
    if kind not in KINDS:
        raise unknown("kind of taxonomy", kind, KINDS)
    if not 2 <= n <= len(x):
        raise UserError(f"{n} categories of {len(x)} sentences were asked for; give from 2 to {len(x)}")
    _check_finite(x)
    x = x.detach().float().cpu()
    center = x.mean(0)
    standardise = standardised(reading) if standardise is None else standardise
    deviation = (x - center).square().mean(0).sqrt()
    scale = torch.where(deviation > 0, deviation, 1.0) if standardise else torch.ones_like(center)
    if not bool(deviation.any()):
        raise UserError(f"{len(x)} equal activations were given; there is nothing to tell apart")
    # The parameters need z, and z the taxonomy's own normalisation: begin with none.
    blank = {KINDS[kind].rows: torch.zeros(n, 1)}
    start = Taxonomy(site, reading, kind, center, scale, blank)
    with _enough(n):
        parameters = KINDS[kind].fit(start.normalised(x), n, seed)
    made = {"sentences": len(x), "seed": seed, "standardise": standardise, **about}
    return Taxonomy(site, reading, kind, center, scale, parameters, made)


@contextmanager
def _enough(n: int) -> Iterator[None]:
    """Refuse what would leave categories that are one another's double, where scikit-learn warns of it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=FEWER)
        try:
            yield
        except Warning as warning:
            if not str(warning).startswith(FEWER):
                raise
            raise UserError(f"{n} categories were asked for and fewer activations differ; ask for fewer") from warning


def _check_finite(x: Values) -> None:
    if not bool(x.isfinite().all()):
        raise UserError("the activations hold NaN or infinity; read them again, in fp32")


# Top-k SAE


def _fit_sae(z: Values, n: int, seed: int) -> Parameters:
    generator = torch.Generator().manual_seed(seed)
    rows = _spread(z, n, generator)
    held = {"encoder": rows.clone(), "decoder": rows.clone(), "bias": torch.zeros(n), "b_dec": torch.zeros(z.shape[1])}
    for tensor in held.values():
        tensor.requires_grad_()
    adam = torch.optim.Adam(held.values(), lr=LR)
    schedule = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.0, total_iters=STEPS)
    for _ in range(STEPS):
        some = z[torch.randint(len(z), (BATCH,), generator=generator)] if len(z) > BATCH else z
        top = _encoded(some, held).topk(min(TOP_K, n), dim=1)
        code = torch.zeros(len(some), n).scatter(1, top.indices, top.values)
        unit = held["decoder"] / held["decoder"].norm(dim=1, keepdim=True)
        loss = (code @ unit + held["b_dec"] - some).square().sum(1).mean()
        for tensor, gradient in zip(held.values(), torch.autograd.grad(loss, list(held.values())), strict=True):
            tensor.grad = gradient
        adam.step()
        schedule.step()
    out = {name: tensor.detach() for name, tensor in held.items()}
    return {**out, "decoder": out["decoder"] / out["decoder"].norm(dim=1, keepdim=True)}


def _encoded(z: Values, held: Mapping[str, Tensor]) -> Float[Tensor, "n categories"]:
    return (z - held["b_dec"]) @ held["encoder"].T + held["bias"]


def _spread(z: Values, n: int, generator: torch.Generator) -> Float[Tensor, "categories d"]:
    """Sentences far from each other, drawn with chances as the squared distance (Arthur & Vassilvitskii 2007)."""
    chosen = [int(torch.randint(len(z), (1,), generator=generator))]
    distance = (z - z[chosen[0]]).square().sum(1)
    for _ in range(n - 1):
        if not bool(distance.any()):
            raise UserError(f"{n} categories were asked for and only {len(chosen)} activations differ; ask for fewer")
        chosen.append(int(distance.multinomial(1, generator=generator)))
        distance = distance.minimum((z - z[chosen[-1]]).square().sum(1))
    return z[chosen].clone()


# Centres


def _fit_k_means(z: Values, n: int, seed: int) -> Parameters:
    from sklearn.cluster import KMeans

    found = KMeans(n, n_init=RESTARTS, random_state=seed).fit(z.numpy())
    return {"centers": torch.from_numpy(found.cluster_centers_).float()}


def _distances(z: Values, held: Mapping[str, Tensor]) -> Float[Tensor, "n categories"]:
    return -torch.cdist(z, held["centers"], compute_mode="donot_use_mm_for_euclid_dist").square()


def _fit_spherical(z: Values, n: int, seed: int) -> Parameters:
    """Dhillon & Modha 2001: centres are the unit means of what lies nearest by cosine; an empty one starts anew."""
    best, highest = z[:n], -torch.inf
    for restart in range(RESTARTS):
        generator = torch.Generator().manual_seed(seed * RESTARTS + restart)
        centers = _spread(z, n, generator)
        labels = torch.full((len(z),), -1)
        for _ in range(100):
            near = (z @ centers.T).max(1)
            if torch.equal(near.indices, labels):
                break
            labels = near.indices
            sums = torch.zeros_like(centers).index_add_(0, labels, z)
            empty = labels.bincount(minlength=n) == 0
            sums[empty] = z[near.values.argsort()[: int(empty.sum())]]  # the sentences that fit worst
            centers = sums / sums.norm(dim=1, keepdim=True).clamp(min=1e-12)
        total = float((z @ centers.T).amax(1).sum())
        if total > highest:
            best, highest = centers, total
    return {"centers": best}


def _cosines(z: Values, held: Mapping[str, Tensor]) -> Float[Tensor, "n categories"]:
    return z @ held["centers"].T


# Gaussian mixture


def _components(z: Values, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Principal components, the mean, and the standard deviation along each."""
    from sklearn.decomposition import PCA

    pca = PCA(min(most, *z.shape), svd_solver="full").fit(z.numpy())
    spread = torch.from_numpy(pca.explained_variance_).float().sqrt().clamp(min=1e-12)
    return torch.from_numpy(pca.components_).float(), torch.from_numpy(pca.mean_).float(), spread


def _mixture(z: Values, basis: Tensor, mean: Tensor, n: int, seed: int, **how: Any) -> tuple[Any, Parameters]:
    """A mixture of the points in a basis, and what is kept of it but for its covariances."""
    from sklearn.mixture import GaussianMixture

    points = ((z - mean) @ basis.T).double().numpy()
    found = GaussianMixture(n, n_init=RESTARTS, max_iter=500, random_state=seed, **how).fit(points)
    means, log_weights = torch.from_numpy(found.means_).float(), torch.from_numpy(found.weights_).log().float()
    return found, {"basis": basis, "mean": mean, "means": means, "log_weights": log_weights}


def _fit_mixture(z: Values, n: int, seed: int) -> Parameters:
    basis, mean, _ = _components(z, COMPONENTS)
    found, held = _mixture(z, basis, mean, n, seed, covariance_type="diag")
    return {**held, "variances": torch.from_numpy(found.covariances_).float()}


def _posterior(z: Values, held: Mapping[str, Tensor]) -> Float[Tensor, "n categories"]:
    point = (z - held["mean"]) @ held["basis"].T
    away = (point[:, None] - held["means"]).square() / held["variances"] + held["variances"].log()
    return held["log_weights"] - away.sum(-1) / 2


def _fit_full_mixture(z: Values, n: int, seed: int) -> Parameters:
    basis, mean, spread = _components(z, n - 1)
    found, held = _mixture(z, basis / spread[:, None], mean, n, seed, reg_covar=1e-4)
    whiteners = torch.from_numpy(found.precisions_cholesky_).float()  # [categories, components, components]
    return {**held, "whiteners": whiteners}


def _full_posterior(z: Values, held: Mapping[str, Tensor]) -> Float[Tensor, "n categories"]:
    point = (z - held["mean"]) @ held["basis"].T
    away = torch.einsum("ncp,cpq->ncq", point[:, None] - held["means"], held["whiteners"]).square().sum(-1)
    log_scale = held["whiteners"].diagonal(dim1=1, dim2=2).log().sum(-1)
    return held["log_weights"] + log_scale - away / 2


@dataclass(frozen=True)
class _Kind:
    """How a kind is found and scored; `rows` names the parameter with a row a category, `unit` says whether it is given
    vectors of length 1.
    """

    summary: str
    rows: str
    fit: Callable[[Values, int, int], Parameters]
    scores: Callable[[Values, Mapping[str, Tensor]], Tensor]
    unit: bool = True


KINDS: dict[str, _Kind] = {
    "topk-sae": _Kind("the strongest latent of a tiny top-k sparse autoencoder", "encoder", _fit_sae, _encoded),
    "k-means": _Kind("the nearest centre", "centers", _fit_k_means, _distances),
    "spherical-k-means": _Kind("the centre at the smallest angle", "centers", _fit_spherical, _cosines),
    "gmm": _Kind("the likeliest component of a Gaussian mixture", "means", _fit_mixture, _posterior),
    "full-gmm": _Kind(
        "the likeliest component of a Gaussian mixture with full covariances",
        "means",
        _fit_full_mixture,
        _full_posterior,
        unit=False,
    ),
}
