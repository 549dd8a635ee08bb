"""A world with known truth: members whose hazard, purchases and response to every offer are stated, not estimated.

Time is counted in days from `World.start` and lived in waves of four weeks. Within a wave

* a member leaves for good at a constant hazard; joining and leaving happen at any moment;
* until then a shopper's visits are a Poisson process, whose rate follows the season and the weekday;
* until then a subscriber pays when a term begins;
* who is sent an offer may redeem it, at a moment drawn evenly from the wave, if still a member; some redemptions are a
  visit more, the others go with a visit that would have come anyway; an offer also multiplies the hazard of the wave.

Nobody knows of a leaving but by silence or by a term that isn't renewed. History is the world under random treatments
(`history`), a closed loop is the world under a policy's (`respond`): both are lived by one function (`life`), so that
what is stated (`truth`) holds for both.
"""
