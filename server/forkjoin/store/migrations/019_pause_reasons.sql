-- Why an agent is paused, as a code. paused_why keeps what people read.

ALTER TABLE agent ADD COLUMN pause_reason TEXT;                         -- NULL if it isn't paused, or for another reason
UPDATE agent SET pause_reason = CASE
  WHEN paused_why = 'a person is in its conversation' THEN 'person_attached'
  WHEN paused_why = 'a person was in its conversation' THEN 'person_left'
  WHEN paused_why = 'memory is short' THEN 'memory'
  WHEN paused_why LIKE '%; set_budget %' THEN 'budget' END
WHERE state = 'paused';
