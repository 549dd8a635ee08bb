-- Every feature of every member at one as_of, as an analyst would write it by hand for one company and its settings:
-- the rival of `features.snapshots`, and a second definition of each feature. The tables are views over Parquet files;
-- the variables are as_of (timestamptz) and today (date).
with lines as (
    select member_id, transaction_id, amount, margin, discount, quantity, category, channel, local_time
    from transactions
    where occurred_at < getvariable('as_of')
),
visits as materialized (
    select
        member_id,
        sum(amount) as amount,
        sum(margin) as margin,
        sum(discount) as discount,
        sum(quantity) as quantity,
        count(*) as lines,
        min(channel) as channel,
        isodow(min(local_time)) as weekday,
        hour(min(local_time)) as hour,
        getvariable('today') - min(local_time)::date as days_ago
    from lines
    group by member_id, transaction_id
),
bought as (
    select
        member_id,
        min(days_ago) as recency_days,
        count(*) filter (days_ago <= 7) as visits_7d,
        count(*) filter (days_ago <= 28) as visits_28d,
        count(*) filter (days_ago <= 56) as visits_56d,
        count(*) filter (days_ago <= 84) as visits_84d,
        count(*) filter (days_ago <= 364) as visits_364d,
        count(*) as visits_total,
        coalesce(sum(amount) filter (days_ago <= 7), 0) as spend_7d,
        coalesce(sum(amount) filter (days_ago <= 28), 0) as spend_28d,
        coalesce(sum(amount) filter (days_ago <= 56), 0) as spend_56d,
        coalesce(sum(amount) filter (days_ago <= 84), 0) as spend_84d,
        coalesce(sum(amount) filter (days_ago <= 364), 0) as spend_364d,
        sum(amount) as spend_total,
        coalesce(sum(margin), 0) as historic_value,
        coalesce(sum(amount) filter (days_ago between 337 and 364), 0) as season_spend_364d,
        coalesce(sum(amount) filter (days_ago <= 364), 0) as tier_spend,
        coalesce(sum(amount) filter (days_ago between 29 and 392), 0) as tier_spend_before,
        max(amount) as basket_max,
        sum(amount * amount) filter (days_ago <= 84) as squares_84d,
        sum(lines) filter (days_ago <= 84) as lines_84d,
        sum(quantity) filter (days_ago <= 84) as items_84d,
        count(quantity) filter (days_ago <= 84) as visits_with_items_84d,
        sum(discount) filter (days_ago <= 84) as discount_84d,
        count(*) filter (days_ago <= 84 and discount > 0) as discounted_84d,
        count(*) filter (days_ago <= 84 and weekday >= 6) as weekend_84d,
        count(*) filter (days_ago <= 84 and hour >= 17) as evening_84d,
        count(*) filter (days_ago <= 84 and weekday = 1) as mondays,
        count(*) filter (days_ago <= 84 and weekday = 2) as tuesdays,
        count(*) filter (days_ago <= 84 and weekday = 3) as wednesdays,
        count(*) filter (days_ago <= 84 and weekday = 4) as thursdays,
        count(*) filter (days_ago <= 84 and weekday = 5) as fridays,
        count(*) filter (days_ago <= 84 and weekday = 6) as saturdays,
        count(*) filter (days_ago <= 84 and weekday = 7) as sundays,
        nullif(greatest(mondays, tuesdays, wednesdays, thursdays, fridays, saturdays, sundays), 0) as most
    from visits
    group by member_id
),
purchase_days as (
    select
        member_id,
        days_ago,
        lag(days_ago) over (partition by member_id order by days_ago desc) as previous
    from (select distinct member_id, days_ago from visits)
),
rhythm as (
    select
        member_id,
        count(previous) as gaps,
        sum(previous - days_ago) as gap_total,
        sum((previous - days_ago) * (previous - days_ago)) as gap_squares,
        max(previous - days_ago) as gap_max_days,
        max(previous - days_ago) filter (days_ago <= 56) as gap_recent_max_days,
        count(*) filter (
            days_ago between 1 and 84 and (previous - 1) // 7 is distinct from (days_ago - 1) // 7
        ) as active_weeks_84d
    from purchase_days
    group by member_id
),
categories as (
    select
        member_id,
        count(*) as category_count_84d,
        max(amount) as category_top,
        sum(amount) as category_total,
        sum(amount * amount) as category_squares,
        coalesce(sum(amount) filter (category = 'fresh'), 0) as fresh
    from (
        select member_id, category, sum(amount) as amount
        from lines
        where getvariable('today') - local_time::date <= 84
        group by member_id, category
    )
    group by member_id
),
channels as (
    select
        member_id,
        count(*) as channel_count_84d,
        max(visits) as channel_top,
        sum(visits) as channel_total,
        coalesce(sum(visits) filter (channel in ('online', 'web', 'app')), 0) as online,
        arg_min(channel, (-visits, channel)) as usual_channel
    from (
        select member_id, channel, count(*) as visits
        from visits
        where days_ago <= 84 and channel is not null
        group by member_id, channel
    )
    group by member_id
),
redeemed as (
    select member_id, contact_id, getvariable('today') - local_time::date as days_ago
    from redemptions
    where occurred_at < getvariable('as_of')
),
responses as (
    select
        member_id,
        count(*) filter (days_ago <= 84) as redemptions_84d,
        count(*) as redemptions_total,
        count(distinct contact_id) as responses_total,
        min(days_ago) as redemption_recency_days
    from redeemed
    group by member_id
),
contacted as (
    select
        member_id,
        count(*) filter (days_ago <= 28) as contacts_28d,
        count(*) filter (days_ago <= 84) as contacts_84d,
        count(*) as contacts_total,
        min(days_ago) as contact_recency_days,
        count(*) filter (days_ago <= 28 and not answered) as contacts_unanswered_28d,
        count(*) filter (days_ago <= 84 and answered) as answered_84d,
        min(days_ago) filter (answered) as answered_recency_days,
        arg_max(treatment, (contacted_at, contact_id)) as last_offer,
        min(days_ago) filter (treatment = 'win_back') as offer_1_recency_days
    from (
        select
            member_id,
            treatment,
            contacted_at,
            contact_id,
            getvariable('today') - local_time::date as days_ago,
            (member_id, contact_id) in (
                select (member_id, contact_id) from redeemed where contact_id is not null
            ) as answered
        from contacts
        where treatment != 'control' and contacted_at < getvariable('as_of')
    )
    group by member_id
),
engaged as (
    select
        member_id,
        count(*) filter (kind in ('login', 'visit') and days_ago <= 28) as logins_28d,
        count(*) filter (kind in ('login', 'visit') and days_ago <= 84) as logins_84d,
        min(days_ago) filter (kind in ('login', 'visit')) as login_recency_days,
        count(*) filter (kind = 'view' and days_ago <= 28) as views_28d,
        count(*) filter (kind = 'view' and days_ago <= 84) as views_84d,
        min(days_ago) filter (kind = 'view') as view_recency_days,
        count(*) filter (kind = 'support' and days_ago <= 84) as support_84d,
        min(days_ago) filter (kind = 'support') as support_recency_days,
        arg_max(value, (occurred_at, event_id)) filter (kind = 'survey' and value is not null) as survey_last,
        sum(value) filter (kind = 'survey') / nullif(count(value) filter (kind = 'survey'), 0) as survey_mean,
        min(days_ago) filter (kind = 'survey' and value is not null) as survey_recency_days,
        coalesce(sum(value) filter (kind = 'points_earned' and days_ago <= 84), 0) as points_earned_84d,
        coalesce(sum(value) filter (kind = 'points_burnt' and days_ago <= 84), 0) as points_burnt_84d,
        coalesce(sum(value) filter (kind = 'points_earned'), 0) as earned,
        coalesce(sum(value) filter (kind = 'points_earned' and days_ago > 336), 0) as earned_long_ago,
        coalesce(sum(value) filter (kind in ('points_burnt', 'points_expired')), 0) as gone,
        min(days_ago) filter (kind in ('points_earned', 'points_burnt')) as points_recency_days,
        min(days_ago) as event_recency_days
    from (
        select *, getvariable('today') - local_time::date as days_ago
        from events
        where occurred_at < getvariable('as_of')
    )
    group by member_id
),
terms as (
    select
        *,
        row_number() over (
            partition by member_id order by started_at desc, ends_at desc, price desc, plan desc
        ) = 1 as newest
    from subscriptions
    where started_at < getvariable('as_of')
),
subscribed as (
    select
        member_id,
        max(floor(epoch(ends_at - getvariable('as_of')) / 86400)) filter (newest) as subscription_days_to_end,
        max(floor(epoch(getvariable('as_of') - started_at) / 86400)) filter (newest) as subscription_term_days,
        count(*) - 1 as subscription_renewals,
        max(coalesce(renewed_at < getvariable('as_of'), false)::int) filter (newest) as subscription_renewed,
        max(coalesce(cancelled_at < getvariable('as_of'), false)::int) filter (newest) as subscription_cancelled,
        count(*) filter (cancelled_at < getvariable('as_of') and not newest) as subscription_past_cancels,
        max(price) filter (newest) as subscription_price,
        max(plan) filter (newest) as subscription_plan
    from terms
    group by member_id
),
known as (
    select * replace (
        coalesce(visits_7d, 0) as visits_7d,
        coalesce(visits_28d, 0) as visits_28d,
        coalesce(visits_56d, 0) as visits_56d,
        coalesce(visits_84d, 0) as visits_84d,
        coalesce(visits_364d, 0) as visits_364d,
        coalesce(visits_total, 0) as visits_total,
        coalesce(spend_7d, 0) as spend_7d,
        coalesce(spend_28d, 0) as spend_28d,
        coalesce(spend_56d, 0) as spend_56d,
        coalesce(spend_84d, 0) as spend_84d,
        coalesce(spend_364d, 0) as spend_364d,
        coalesce(spend_total, 0) as spend_total,
        coalesce(historic_value, 0) as historic_value,
        coalesce(season_spend_364d, 0) as season_spend_364d,
        coalesce(tier_spend, 0) as tier_spend,
        coalesce(tier_spend_before, 0) as tier_spend_before,
        coalesce(basket_max, 0) as basket_max,
        coalesce(active_weeks_84d, 0) as active_weeks_84d,
        coalesce(category_count_84d, 0) as category_count_84d,
        coalesce(redemptions_84d, 0) as redemptions_84d,
        coalesce(redemptions_total, 0) as redemptions_total,
        coalesce(responses_total, 0) as responses_total,
        coalesce(contacts_28d, 0) as contacts_28d,
        coalesce(contacts_84d, 0) as contacts_84d,
        coalesce(contacts_total, 0) as contacts_total,
        coalesce(contacts_unanswered_28d, 0) as contacts_unanswered_28d,
        coalesce(logins_28d, 0) as logins_28d,
        coalesce(logins_84d, 0) as logins_84d,
        coalesce(views_28d, 0) as views_28d,
        coalesce(views_84d, 0) as views_84d,
        coalesce(support_84d, 0) as support_84d,
        coalesce(points_earned_84d, 0) as points_earned_84d,
        coalesce(points_burnt_84d, 0) as points_burnt_84d
    )
    from (
        select
            member_id,
            getvariable('today') - local_time::date as tenure_days,
            if(coalesce(personalisation, true), 'yes', 'no') as personalisation,
            region,
            gender
        from members
        where joined_at < getvariable('as_of')
    )
    left join bought using (member_id)
    left join rhythm using (member_id)
    left join categories using (member_id)
    left join channels using (member_id)
    left join responses using (member_id)
    left join contacted using (member_id)
    left join engaged using (member_id)
    left join subscribed using (member_id)
),
scored as (
    select
        *,
        least(floor(percent_rank() over (order by -coalesce(recency_days, 100000)) * 5) + 1, 5) as recency_score,
        least(floor(percent_rank() over (order by visits_84d) * 5) + 1, 5) as frequency_score,
        least(floor(percent_rank() over (order by spend_84d) * 5) + 1, 5) as monetary_score,
        gap_total / nullif(gaps, 0) as gap_mean_days,
        (tier_spend >= 0)::int + (tier_spend >= 50000)::int + (tier_spend >= 150000)::int as tier_level,
        (tier_spend_before >= 0)::int + (tier_spend_before >= 50000)::int + (tier_spend_before >= 150000)::int
            as tier_level_before
    from known
)
select
    member_id,
    getvariable('as_of') as event_timestamp,
    getvariable('as_of') as created_timestamp,
    recency_days,
    visits_7d,
    visits_28d,
    visits_56d,
    visits_84d,
    visits_364d,
    visits_total,
    spend_7d,
    spend_28d,
    spend_56d,
    spend_84d,
    spend_364d,
    spend_total,
    spend_total * 28 / greatest(tenure_days, 28) as spend_per_28d,
    historic_value,
    (2 * visits_28d - visits_56d) / nullif(visits_56d, 0) as visits_trend_28d,
    (2 * spend_28d - spend_56d) / nullif(spend_56d, 0) as spend_trend_28d,
    visits_7d / nullif(visits_28d, 0) as visits_pace_28d,
    visits_28d / nullif(visits_84d, 0) as visits_pace_84d,
    visits_84d / nullif(visits_364d, 0) as visits_pace_364d,
    spend_7d / nullif(spend_28d, 0) as spend_pace_28d,
    spend_28d / nullif(spend_84d, 0) as spend_pace_84d,
    spend_84d / nullif(spend_364d, 0) as spend_pace_364d,
    tenure_days,
    gap_mean_days,
    sqrt((gaps * gap_squares - gap_total * gap_total) / nullif(gaps * (gaps - 1), 0)) as gap_sd_days,
    gap_max_days,
    gap_recent_max_days,
    recency_days / nullif(gap_mean_days, 0) as overdue_ratio,
    gap_mean_days - recency_days as next_purchase_days,
    active_weeks_84d,
    weekend_84d / nullif(visits_84d, 0) as weekend_share_84d,
    evening_84d / nullif(visits_84d, 0) as evening_share_84d,
    most / nullif(visits_84d, 0) as weekday_top_share_84d,
    case most
        when mondays then 'Monday'
        when tuesdays then 'Tuesday'
        when wednesdays then 'Wednesday'
        when thursdays then 'Thursday'
        when fridays then 'Friday'
        when saturdays then 'Saturday'
        when sundays then 'Sunday'
    end as usual_weekday,
    season_spend_364d,
    13 * season_spend_364d / nullif(spend_364d, 0) as season_ratio_364d,
    spend_84d / nullif(visits_84d, 0) as basket_mean_84d,
    sqrt((visits_84d * squares_84d - spend_84d * spend_84d) / nullif(visits_84d * (visits_84d - 1), 0))
        as basket_sd_84d,
    basket_max,
    lines_84d / nullif(visits_84d, 0) as lines_per_visit_84d,
    items_84d / nullif(visits_with_items_84d, 0) as items_per_visit_84d,
    discount_84d / nullif(discount_84d + spend_84d, 0) as discount_share_84d,
    discounted_84d / nullif(visits_84d, 0) as discounted_visits_share_84d,
    category_count_84d,
    category_top / nullif(category_total, 0) as category_top_share_84d,
    category_squares / nullif(category_total * category_total, 0) as category_concentration_84d,
    fresh / nullif(category_total, 0) as category_1_share_84d,
    channel_count_84d,
    channel_top / channel_total as channel_top_share_84d,
    online / channel_total as online_share_84d,
    usual_channel,
    contacts_28d,
    contacts_84d,
    contacts_total,
    contact_recency_days,
    contacts_unanswered_28d,
    answered_84d / nullif(contacts_84d, 0) as response_rate_84d,
    answered_recency_days,
    last_offer,
    offer_1_recency_days,
    redemptions_84d,
    redemptions_total,
    redemption_recency_days,
    responses_total,
    responses_total / nullif(contacts_total, 0) as response_rate,
    logins_28d,
    logins_84d,
    login_recency_days,
    views_28d,
    views_84d,
    view_recency_days,
    support_84d,
    support_recency_days,
    survey_last,
    survey_mean,
    survey_recency_days,
    points_earned_84d,
    points_burnt_84d,
    coalesce(earned - gone, 0) as points_balance,
    greatest(coalesce(earned_long_ago - gone, 0), 0) as points_expiring,
    points_recency_days,
    event_recency_days,
    subscription_days_to_end,
    subscription_term_days,
    subscription_renewals,
    subscription_renewed,
    subscription_cancelled,
    subscription_past_cancels,
    subscription_price,
    subscription_plan,
    tier_spend,
    tier_spend_before,
    tier_level,
    tier_level - tier_level_before as tier_change,
    case
        when tier_spend < 0 then -tier_spend
        when tier_spend < 50000 then 50000 - tier_spend
        when tier_spend < 150000 then 150000 - tier_spend
    end as tier_distance,
    case tier_level when 1 then 'bronze' when 2 then 'silver' when 3 then 'gold' end as tier,
    recency_score,
    frequency_score,
    monetary_score,
    case
        when recency_score >= 4 and frequency_score >= 4 and monetary_score >= 4 then 'best'
        when frequency_score >= 4 then 'loyal'
        when monetary_score >= 4 then 'big_basket'
        when recency_score >= 4 and frequency_score <= 2 then 'promising'
        when recency_score <= 2 and frequency_score > 2 then 'slipping'
        when recency_score <= 2 and frequency_score <= 2 then 'hibernating'
        else 'regular'
    end as segment,
    case
        when coalesce(recency_days, tenure_days) > 84 then 'lapsed'
        when coalesce(recency_days, tenure_days) > 28 then 'dormant'
        when tenure_days <= 56 then 'new'
        when gap_recent_max_days > 84 then 'returned'
        else 'active'
    end as lifecycle_stage,
    personalisation,
    region,
    gender
from scored
order by member_id
