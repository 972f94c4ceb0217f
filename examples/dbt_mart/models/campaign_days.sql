-- One row per day, campaign and currency. A campaign without spend or without orders on a day still has its row.
with spend as (
  select day, campaign, currency, sum(spend_micros) / 1e6 as spend, sum(clicks) as clicks,
    sum(conversions) as platform_conversions, min(receipt_id) as spend_receipt_id
  from {{ source('counterfoil', 'spend') }}
  group by all
),

orders as (
  select day, coalesce(campaign, 'none') as campaign, sum(orders) as orders, sum(revenue) as revenue,
    min(receipt_id) as orders_receipt_id
  from {{ source('counterfoil', 'orders') }}
  group by all
)

select day, campaign, currency, coalesce(spend, 0) as spend, coalesce(clicks, 0) as clicks,
  coalesce(platform_conversions, 0) as platform_conversions, coalesce(orders, 0) as orders,
  coalesce(revenue, 0) as revenue, spend_receipt_id, orders_receipt_id
from spend full join orders using (day, campaign)
order by day, campaign
