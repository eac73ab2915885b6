/* png_font.h - letters as strokes on a grid 4 wide and 8 high: capitals reach from row 0 to the
 * baseline at row 6, small letters begin at row 2, tails end at row 8. */
#ifndef TOOLS_COMMON_PNG_FONT_H
#define TOOLS_COMMON_PNG_FONT_H

/* Strokes between commas, each a chain of points "xy"; a point twice is a dot. "" for a space. */
const char *font_strokes(unsigned char c);

#endif
