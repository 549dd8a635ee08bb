"""A decision in plain language, English or Chinese, and what would have changed it.

What would have changed it is not guessed: the decision is taken again, from what the log kept of it, by the function
that took it, with one thing changed: a limit that is not there, another arm, an offer that costs less.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from features.decisions import is_erased
from features.programme import Programme
from features.schema import CONTROL
from serving.decide import Decider, Members, Occasion, Worth
from serving.replay import grounds_again
from training.policy import MODEL

if TYPE_CHECKING:
    from features.log.standing import Standing

Row = Mapping[str, Any]
Language = Literal["en", "zh"]

LANGUAGES: Final[tuple[Language, ...]] = ("en", "zh")
WORDS: Final[dict[Language, dict[str, str]]] = {
    "en": {
        "none": "no contact",
        "model": "The model chose {treatment}: of what was possible it is expected to earn most, {net}.",
        "model_control": "The model chose no contact: no possible offer is expected to earn more than it costs.",
        "explored": "By chance, with probability {share}, {treatment} was drawn, so that the programme keeps learning.",
        "random": "The member is in the group whose treatment is always drawn evenly; {treatment} was drawn.",
        "hold_out": "The member is in the group that is never contacted, by which effects are measured.",
        "opt_out": "The member wants no personalisation, so nothing was read or computed, and there is no contact.",
        "fallback": "The member could not be scored ({why}), so the answer is the one for everybody: {treatment}.",
        "erased": "The member was erased; only what an experiment counts is left of this decision.",
        "refused": "{offer} was not possible: {why}.",
        "reasons": "What moves the member's risk most: {reasons}.",
        "without": "Without {limit}, {treatment} would have been chosen.",
        "cheaper": "Had {offer} cost {less} less, it would have been chosen.",
        "stays": "Nothing of what was looked at alone (limits, groups, costs) would have changed it.",
        "arm": "its place in that group",
    },
    "zh": {
        "none": "不联系",
        "model": "模型选择了{treatment}：在可行的方案中预期净收益最高，为{net}。",
        "model_control": "模型选择不联系：没有任何可行优惠的预期收益高于其成本。",
        "explored": "以{share}的概率随机抽中了{treatment}，以便计划持续学习。",
        "random": "该会员属于始终均匀随机分配的组；抽中了{treatment}。",
        "hold_out": "该会员属于从不联系的对照组，用于衡量效果。",
        "opt_out": "该会员不接受个性化，因此没有读取或计算任何数据，也不联系。",
        "fallback": "无法为该会员评分（{why}），因此给出通用答案：{treatment}。",
        "erased": "该会员已被删除；此决策只保留实验计数所需的内容。",
        "refused": "{offer}不可行：{why}。",
        "reasons": "对该会员流失风险影响最大的因素：{reasons}。",
        "without": "如果没有{limit}，将会选择{treatment}。",
        "cheaper": "如果{offer}的成本减少{less}，就会被选中。",
        "stays": "单独改变所考察的任何一项（限制、分组、成本）都不会改变结果。",
        "arm": "该会员所在的组",
    },
}
REFUSED: Final[dict[Language, dict[str, str]]] = {
    "en": {
        "not_scored": "no model has said what it would bring",
        "opt_out": "the member wants no personalisation",
        "not_asked": "the request or the campaign is about other offers",
        "excluded": "the policy leaves it out",
        "validity": "its time, or the campaign's, has not come or is over",
        "channel": "its channel is closed",
        "price": "it would cost the member more than the public price",
        "rule": "it is not known that the member meets its rule",
        "cost_cap": "it costs more than a member of this stage may",
        "apart": "what other instances sent could not be known at that moment",
        "offer_contacts": "the rest of {offer_days} days between two contacts with it is not over",
        "contacts": "the rest of {days} days between two contacts is not over",
        "contacts_per_period": "the member has had {most} contacts within {period} days",
        "stock": "none of it is left",
        "budget": "what is left of the budget does not cover it",
        "precedence": "another possible offer takes precedence",
        "mandatory": "another offer is mandatory",
    },
    "zh": {
        "not_scored": "没有模型给出其预期收益",
        "opt_out": "该会员不接受个性化",
        "not_asked": "本次请求或活动只涉及其他优惠",
        "excluded": "策略将其排除",
        "validity": "其有效期或活动时间未到或已过",
        "channel": "其渠道已关闭",
        "price": "会员支付的价格会高于公开价格",
        "rule": "无法确认该会员符合其规则",
        "cost_cap": "其成本超过该阶段会员的上限",
        "apart": "当时无法得知其他实例已发送的内容",
        "offer_contacts": "两次发送该优惠之间{offer_days}天的间隔未满",
        "contacts": "两次联系之间{days}天的间隔未满",
        "contacts_per_period": "该会员在{period}天内已被联系{most}次",
        "stock": "已无库存",
        "budget": "剩余预算不足",
        "precedence": "另一可行优惠优先",
        "mandatory": "另一优惠为强制优惠",
    },
}
LIMITS: Final[dict[Language, dict[str, str]]] = {
    "en": {
        "contacts": "the rest of {days} days between two contacts",
        "offer_contacts": "the rest between two contacts with one offer",
        "contacts_per_period": "the limit of {most} contacts within {period} days",
        "apart": "other instances that could not be asked",
        "stock": "an end to its stock",
        "budget": "an end to the budget",
    },
    "zh": {
        "contacts": "两次联系之间{days}天的间隔",
        "offer_contacts": "同一优惠两次发送之间的间隔",
        "contacts_per_period": "{period}天内最多联系{most}次的限制",
        "apart": "当时无法询问的其他实例",
        "stock": "库存限制",
        "budget": "预算限制",
    },
}


@dataclass(frozen=True)
class Grounds:
    """Hold what a decision rested on, as it is put together again from the log."""

    decider: Decider
    members: Members
    worth: Worth
    occasion: Occasion
    draw: NDArray[np.float64]

    def choose(self) -> str:
        """Take the decision again."""
        choice = self.decider.choose(self.members, self.worth, occasion=self.occasion, uniform=self.draw)
        return self.decider.treatments[int(choice.chosen[0])]


def explain(decider: Decider, row: Row, language: Language) -> tuple[str, ...]:
    """Say what was decided, why, why not the rest, and what would have changed it."""
    words, programme = WORDS[language], decider.programme
    if is_erased(row):
        return (words["erased"],)
    said = [*_decided(row, words, programme)]
    limits = _limits(decider)
    for place, word in enumerate(row["refusals"]):
        if word and row["outcome"] in {"model", "random"}:
            offer = row["treatments"][1 + place]
            own = limits | {"offer_days": _offer_days(decider, offer)}
            said.append(words["refused"].format(offer=offer, why=REFUSED[language][word].format(**own)))
    if row["reasons"]:
        said.append(words["reasons"].format(reasons="; ".join(_reason(one, language) for one in row["reasons"])))
    if row["outcome"] in {"model", "random", "hold_out"}:
        changes = [*changes_of(decider, row, language)]
        said += changes or [words["stays"]]
    return tuple(said)


def changes_of(decider: Decider, row: Row, language: Language) -> Iterator[str]:
    """Say what, changed alone, would have changed the decision."""
    words, grounds, limits = WORDS[language], Grounds(decider, *grounds_again(decider, row)), _limits(decider)
    for word in LIMITS[language]:
        if word in row["refusals"] and (other := _without(grounds, word)) != row["treatment"]:
            limit = LIMITS[language][word].format(**limits)
            yield words["without"].format(limit=limit, treatment=_name(other, words))
    if row["outcome"] in {"hold_out", "random"}:
        other = replace(grounds, members=replace(grounds.members, arm=np.full(1, MODEL))).choose()
        if other != row["treatment"]:
            yield words["without"].format(limit=words["arm"], treatment=_name(other, words))
        return
    for place, offer in enumerate(decider.release.offer_ids):
        if offer != row["treatment"] and (less := cheaper(grounds, offer, place)) is not None:
            yield words["cheaper"].format(offer=offer, less=decider.programme.money(less))


def cheaper(grounds: Grounds, offer: str, place: int) -> int | None:
    """Find by how little less an offer would have to cost to be chosen, in minor units; None if no less would do."""

    def chosen(less: int) -> bool:
        cost = grounds.worth.cost.copy()
        cost[:, place] -= less
        return replace(grounds, worth=replace(grounds.worth, cost=cost)).choose() == offer

    high = int(grounds.worth.cost[0, place])
    if high < 1 or not chosen(high):
        return None
    low = 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if chosen(middle) else (middle, high)
    return high


def _without(grounds: Grounds, word: str) -> str:
    """Decide without one limit."""
    standing, purse = grounds.members.standing, grounds.occasion.purse
    free: dict[str, Standing] = {
        "contacts": replace(standing, since_any=np.full_like(standing.since_any, np.inf)),
        "offer_contacts": replace(standing, since_offer=np.full_like(standing.since_offer, np.inf)),
        "contacts_per_period": replace(standing, in_period=np.zeros_like(standing.in_period)),
    }
    endless = {
        "budget": replace(purse, budget=np.inf),
        "stock": replace(purse, stock=np.full_like(purse.stock, np.inf)),
        "apart": replace(purse, apart=False),
    }
    members = replace(grounds.members, standing=free.get(word, standing))
    occasion = replace(grounds.occasion, purse=endless.get(word, purse))
    return replace(grounds, members=members, occasion=occasion).choose()


def _decided(row: Row, words: Mapping[str, str], programme: Programme) -> Iterator[str]:
    treatment, outcome = row["treatment"], row["outcome"]
    place = row["treatments"].index(treatment)
    if outcome == "model" and row["propensity"] < max(row["probabilities"]):
        yield words["explored"].format(share=f"{100 * row['propensity']:.2g} %", treatment=_name(treatment, words))
    elif outcome == "model" and treatment == CONTROL:
        yield words["model_control"]
    elif outcome == "model":
        yield words["model"].format(treatment=treatment, net=programme.money(row["net_value"][place - 1]))
    else:
        yield words[outcome].format(treatment=_name(treatment, words), why=row["fallback_reason"])


def _limits(decider: Decider) -> dict[str, Any]:
    policy = decider.catalogue.policy
    return {
        "days": policy.min_days_between_contacts,
        "most": policy.contacts_per_period,
        "period": policy.period_days,
    }


def _offer_days(decider: Decider, offer_id: str) -> int:
    return next((one.min_days_between_contacts for one in decider.catalogue.offers if one.offer_id == offer_id), 0)


def _reason(reason: Mapping[str, Any], language: Language) -> str:
    if language == "en":
        return str(reason["text"])
    shown = "未知" if reason["value"] is None else reason["value"]
    return f"{reason['feature']} = {shown}（{'提高' if reason['effect'] > 0 else '降低'}风险）"


def _name(treatment: str, words: Mapping[str, str]) -> str:
    return words["none"] if treatment == CONTROL else treatment


def language_of(asked: str | None, accepted: str) -> Language:
    """Choose a language: the one that is asked for, else the first known of an Accept-Language header, else English.

    >>> language_of(None, "zh-CN,zh;q=0.9,en;q=0.8"), language_of("en", "zh"), language_of(None, "fr")
    ('zh', 'en', 'en')
    """
    for tag in [asked or "", *(part.partition(";")[0] for part in accepted.split(","))]:
        short = tag.strip().lower().partition("-")[0]
        if short in LANGUAGES:
            return "zh" if short == "zh" else "en"
    return "en"
