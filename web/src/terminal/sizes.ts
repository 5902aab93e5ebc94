/** Of the bar at the right of a terminal, in which hits of a search are marked. */
export const SCROLLBAR_PX = 12;
